import { createServer } from 'node:https'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { parseConfig } from '../../src/core/schema.ts'
import kubernetes from '../../src/targets/kubernetes.ts'
import { expectNoLeak } from '../conformance/_shared.ts'
import { selfSigned } from '../fakes/certificate.ts'
import { type TestContext, testContext } from '../fakes/context.ts'
import { FakeKubernetes } from '../fakes/kubernetes.ts'

let context: TestContext
let fake: FakeKubernetes
beforeEach(async () => {
  context = testContext()
  fake = await new FakeKubernetes().start()
})
afterEach(() => fake.stop())

const parsed = (more: Record<string, unknown>) =>
  parseConfig(
    kubernetes.config,
    { namespace: fake.namespace, secret: 'app', ...more } as never,
    'target',
  )

describe('the way to the cluster', () => {
  let directory: string
  beforeEach(() => void (directory = mkdtempSync(join(tmpdir(), 'rotate-kube-'))))
  afterEach(() => rmSync(directory, { recursive: true }))
  const file = (name: string, text: string): string => {
    writeFileSync(join(directory, name), text)
    return join(directory, name)
  }
  const kubeconfig = (
    user: unknown,
    cluster: Record<string, unknown> = {},
    more: Record<string, unknown> = {},
  ): string =>
    file(
      'config',
      JSON.stringify({
        'current-context': 'here',
        contexts: [
          { name: 'here', context: { cluster: 'c', user: 'u', namespace: 'ignored' } },
          { name: 'elsewhere', context: { cluster: 'none', user: 'u' } },
        ],
        clusters: [{ name: 'c', cluster: { server: fake.url, ...cluster } }],
        users: [{ name: 'u', user }],
        ...more,
      }),
    )
  const probing = async (more: Record<string, unknown>): Promise<void> =>
    (await kubernetes.open(parsed(more), context)).probe()

  test('tokens in a kubeconfig, in a file beside it, in a file of their own', async () => {
    fake.add('app', {})
    await probing({ kubeconfig: kubeconfig({ token: fake.token }) })
    file('token', `${fake.token}\n`)
    await probing({ kubeconfig: kubeconfig({ token: 'an-old-one', tokenFile: 'token' }) })
    await probing({ server: fake.url, tokenFile: join(directory, 'token') })
  })

  test.each([
    ['a program', { exec: { command: 'aws' } }, {}, {}, /wants "exec" for the user "u"/],
    ['a password', { username: 'a', password: 'b' }, {}, {}, /wants "username"/],
    ['another user', { token: 't', as: 'admin' }, {}, {}, /wants "as"/],
    [
      'no check of the certificate',
      { token: 't' },
      { 'insecure-skip-tls-verify': true },
      {},
      /wants "insecure-skip-tls-verify" for the cluster/,
    ],
    ['plain http', { token: 't' }, { server: 'http://10.0.0.1' }, {}, /the server is plain http/],
    ['nobody', {}, {}, {}, /neither a token nor a certificate/],
    [
      'half a certificate',
      { 'client-certificate-data': 'eA==' },
      {},
      {},
      /neither a token nor a certificate/,
    ],
    ['a file that is not there', { tokenFile: 'nowhere' }, {}, {}, /can not be read \(ENOENT\)/],
    ['no context', { token: 't' }, {}, { 'current-context': '' }, /has no context ""/],
    ['no list of users', { token: 't' }, {}, { users: 'x' }, /is not a kubeconfig/],
  ])(
    'a kubeconfig that wants %s is refused by name',
    async (_what, user, cluster, more, message) => {
      await expect(probing({ kubeconfig: kubeconfig(user, cluster, more) })).rejects.toMatchObject({
        code: 'misconfigured',
        message: expect.stringMatching(message) as string,
      })
      expect(fake.calls).toEqual([])
    },
  )

  test('another context, and text that is no YAML and is not quoted', async () => {
    await expect(
      probing({ kubeconfig: kubeconfig({ token: 't' }), context: 'elsewhere' }),
    ).rejects.toThrow(/has no cluster "none"/)
    const error: unknown = await probing({
      kubeconfig: file('config', 'token: "quoted-secret\n  x: ['),
    }).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({
      code: 'misconfigured',
      message: expect.stringContaining('is not YAML') as string,
    })
    expectNoLeak(error, ['quoted-secret'])
  })

  test('a cluster with an authority of its own, which may ask for a certificate', async () => {
    const [server, client, other] = [
      selfSigned('cluster'),
      selfSigned('client'),
      selfSigned('other'),
    ]
    const seen: (string | undefined)[][] = []
    const https = createServer(
      {
        cert: server.cert,
        key: server.key,
        ca: client.cert,
        requestCert: true,
        rejectUnauthorized: false,
      },
      (request, response) => {
        const socket = request.socket as TLSSocket
        seen.push([
          request.headers.authorization,
          socket.authorized ? String(socket.getPeerCertificate().subject.CN) : undefined,
        ])
        response
          .writeHead(200, { 'content-type': 'application/json' })
          .end('{"data":{},"status":{"allowed":true}}')
      },
    )
    await new Promise<void>((done) => https.listen(0, '127.0.0.1', done))
    const url = `https://127.0.0.1:${(https.address() as AddressInfo).port}`
    const base64 = (text: string): string => Buffer.from(text).toString('base64')
    const asUser = (from: unknown, ca: string): string =>
      kubeconfig(from, { server: url, 'certificate-authority-data': base64(ca) })
    try {
      await probing({ server: url, token: 'by-token', ca: server.cert })
      await probing({ server: url, token: 'by-file', caFile: file('ca.crt', server.cert) })
      await probing({
        kubeconfig: asUser(
          { 'client-certificate-data': base64(client.cert), 'client-key-data': base64(client.key) },
          server.cert,
        ),
      })
      file('client.crt', client.cert)
      file('client.key', client.key)
      await probing({
        kubeconfig: asUser(
          { 'client-certificate': 'client.crt', 'client-key': 'client.key' },
          server.cert,
        ),
      })
      expect(seen.filter((_item, i) => i % 2 === 0)).toEqual([
        ['Bearer by-token', undefined],
        ['Bearer by-file', undefined],
        [undefined, 'client'],
        [undefined, 'client'],
      ])
      const arrived = seen.length
      for (const more of [{ ca: other.cert }, {}])
        await expect(probing({ server: url, token: 'by-token', ...more })).rejects.toMatchObject({
          code: 'unreachable',
          effect: 'none',
          message: expect.stringContaining('TLS') as string,
        })
      expect(seen).toHaveLength(arrived)
    } finally {
      https.closeAllConnections()
      https.close()
    }
  })

  test.each([
    [{}, /"kubeconfig" or "server"/],
    [{ kubeconfig: 'a', server: 'https://x', token: 't' }, /not both/],
    [{ server: 'https://x' }, /"token" or "tokenFile"/],
    [{ server: 'https://x', token: 't', tokenFile: 'f' }, /not both/],
    [{ server: 'https://x', token: 't', ca: 'x' }, /certificate in PEM/],
    [
      { server: 'https://x', token: 't', caFile: 'x', ca: '-----BEGIN CERTIFICATE-----' },
      /same thing twice/,
    ],
    [{ kubeconfig: 'a', token: 't' }, /"server" is missing/],
    [{ server: 'https://x', token: 't', context: 'c' }, /one of a kubeconfig/],
    [{ server: 'https://x', token: 't', restart: ['pod/x'] }, /deployment\/NAME/],
    [{ server: 'https://x', token: 't', secret: '../x' }, /not the name of a Secret/],
    [{ server: 'https://x', token: 't', namespace: 'a/b' }, /not the name of a namespace/],
  ])('what is no way: %o', (more, message) => expect(() => parsed(more)).toThrow(message))

  test('files are made absolute, and nothing is added', async () => {
    const rest = { namespace: 'a', secret: 'b' }
    expect(await kubernetes.settleConfig({ ...rest, kubeconfig: 'k' }, context)).toEqual({
      ...rest,
      kubeconfig: resolve('k'),
    })
    const files = { server: 'https://x', tokenFile: 't', caFile: 'c' }
    expect(await kubernetes.settleConfig({ ...rest, ...files }, context)).toEqual({
      ...rest,
      server: 'https://x',
      tokenFile: resolve('t'),
      caFile: resolve('c'),
    })
  })
})
