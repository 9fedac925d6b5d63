import { createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { Secret } from '../../src/core/secret.ts'
import { openJwe } from '../../src/net/jwe.ts'
import { expectNoLeak } from '../conformance/_shared.ts'
import { jwe } from '../fakes/stripe.ts'

/** The example of RFC 7516, appendix A.1: its key and its plaintext. */
const RFC_KEY = {
  kty: 'RSA',
  n: 'oahUIoWw0K0usKNuOR6H4wkf4oBUXHTxRvgb48E-BVvxkeDNjbC4he8rUWcJoZmds2h7M70imEVhRU5djINXtqllXI4DFqcI1DgjT9LewND8MW2Krf3Spsk_ZkoFnilakGygTwpZ3uesH-PFABNIUYpOiN15dsQRkgr0vEhxN92i2asbOenSZeyaxziK72UwxrrKoExv6kc5twXTq4h-QChLOln0_mtUZwfsRaMStPs6mS6XrgxnxbWhojf663tuEQueGC-FCMfra36C9knDFGzKsNa7LZK2djYgyD3JR_MB_4NUJW_TqOQtwHYbxevoJArm-L5StowjzGy-_bq6Gw',
  e: 'AQAB',
  d: 'kLdtIj6GbDks_ApCSTYQtelcNttlKiOyPzMrXHeI-yk1F7-kpDxY4-WY5NWV5KntaEeXS1j82E375xxhWMHXyvjYecPT9fpwR_M9gV8n9Hrh2anTpTD93Dt62ypW3yDsJzBnTnrYu1iwWRgBKrEYY46qAZIrA2xAwnm2X7uGR1hghkqDp0Vqj3kbSCz1XyfCs6_LehBwtxHIyh8Ripy40p24moOAbgxVw3rxT_vlt3UVe4WO3JkJOzlpUf-KTVI2Ptgm-dARxTEtE-id-4OJr0h-K-VFs3VSndVTIznSxfyrj8ILL6MG_Uv8YAu7VILSB3lOW085-4qE3DzgrTjgyQ',
  p: '1r52Xk46c-LsfB5P442p7atdPUrxQSy4mti_tZI3Mgf2EuFVbUoDBvaRQ-SWxkbkmoEzL7JXroSBjSrK3YIQgYdMgyAEPTPjXv_hI2_1eTSPVZfzL0lffNn03IXqWF5MDFuoUYE0hzb2vhrlN_rKrbfDIwUbTrjjgieRbwC6Cl0',
  q: 'wLb35x7hmQWZsWJmB_vle87ihgZ19S8lBEROLIsZG4ayZVe9Hi9gDVCOBmUDdaDYVTSNx_8Fyw1YYa9XGrGnDew00J28cRUoeBB_jKI1oma0Orv1T9aXIWxKwd4gvxFImOWr3QRL9KEBRzk2RatUBnmDZJTIAfwTs0g68UZHvtc',
  dp: 'ZK-YwE7diUh0qR1tR7w8WHtolDx3MZ_OTowiFvgfeQ3SiresXjm9gZ5KLhMXvo-uz-KUJWDxS5pFQ_M0evdo1dKiRTjVw_x4NyqyXPM5nULPkcpU827rnpZzAJKpdhWAgqrXGKAECQH0Xt4taznjnd_zVpAmZZq60WPMBMfKcuE',
  dq: 'Dq0gfgJ1DdFGXiLvQEZnuKEN0UUmsJBxkjydc3j4ZYdBiMRAy86x0vHCjywcMlYYg4yoC4YZa9hNVcsjqA3FeiL19rk8g6Qn29Tt0cj8qqyFpz9vNDBUfCAiJVeESOjJDZPYHdHY8v1b-o-Z2X5tvLx-TCekf7oxyeKDUqKWjis',
  qi: 'VIMpMYbPf47dT1w_zDUXfPimsSegnMOA1zTaX7aGk_8urY6R8-ZW1FxU7AlWAyLWybqq6t16VFd7hQd0y6flUK4SlOydB61gwanOsXGOAOv82cHq0E3eL4HrtZkUuKvnPrMnsUUFlfUdybVzxyjz9JF_XyaY14ardLSjf4L_FNY',
}
const RFC_JWE = [
  'eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ',
  'OKOawDo13gRp2ojaHV7LFpZcgV7T6DVZKTyKOMTYUmKoTCVJRgckCL9kiMT03JGeipsEdY3mx_etLbbWSrFr05kLzcSr4qKAq7YN7e9jwQRb23nfa6c9d-StnImGyFDbSv04uVuxIp5Zms1gNxKKK2Da14B8S4rzVRltdYwam_lDp5XnZAYpQdb76FdIKLaVmqgfwX7XWRxv2322i-vDxRfqNzo_tETKzpVLzfiwQyeyPGLBIO56YJ7eObdv0je81860ppamavo35UgoRdbYaBcoh9QcfylQr66oc6vFWXRcZ_ZT2LawVCWTIy3brGPi6UklfCpIMfIjf7iGdXKHzg',
  '48V1_ALb6US04U3b',
  '5eym8TW_c8SuK0ltJ3rpYIzOeDQz7TALvtu6UG9oMo4vpzs9tX_EFShS8iB7j6jiSdiwkIr3ajwQzaBtQD_A',
  'XFBoMYUZodetZdvTiFvSkQ',
].join('.')
const TEXT = 'The true sign of intelligence is not knowledge but imagination.'

const key = new Secret(
  createPrivateKey({ key: RFC_KEY, format: 'jwk' })
    .export({ type: 'pkcs8', format: 'pem' })
    .toString(),
)
const publicKey = createPublicKey(key.reveal())
const other = new Secret(
  generateKeyPairSync('rsa', { modulusLength: 2048 })
    .privateKey.export({ type: 'pkcs8', format: 'pem' })
    .toString(),
)

/** The example with one character of one part changed. */
const changed = (part: number): string =>
  RFC_JWE.split('.')
    .map((text, i) => (i === part ? `${text.startsWith('A') ? 'B' : 'A'}${text.slice(1)}` : text))
    .join('.')

describe('openJwe', () => {
  test('opens the example of RFC 7516, A.1', () =>
    expect(openJwe(RFC_JWE, key).reveal()).toBe(TEXT))

  test.each(['RSA-OAEP', 'RSA-OAEP-256'])('opens %s', (alg) =>
    expect(openJwe(jwe('rk_live_0123456789', publicKey, alg), key).reveal()).toBe(
      'rk_live_0123456789',
    ),
  )

  test.each([
    ['another key', RFC_JWE, other],
    ...[1, 2, 3, 4].map((part): [string, string, Secret] => [
      `part ${part} changed`,
      changed(part),
      key,
    ]),
    [
      'a header that says something else than what was encrypted',
      RFC_JWE.replace(
        /^[^.]+/,
        Buffer.from('{"alg":"RSA-OAEP", "enc":"A256GCM"}').toString('base64url'),
      ),
      key,
    ],
    [
      'the other hash',
      RFC_JWE.replace(
        /^[^.]+/,
        Buffer.from('{"alg":"RSA-OAEP-256","enc":"A256GCM"}').toString('base64url'),
      ),
      key,
    ],
    ['a short tag, which is easier to forge', RFC_JWE.slice(0, -18), key],
    ['another alg', jwe(TEXT, publicKey, 'RSA1_5'), key],
    ['another enc', jwe(TEXT, publicKey, 'RSA-OAEP', { enc: 'A128GCM' }), key],
    ['a critical header', jwe(TEXT, publicKey, 'RSA-OAEP', { crit: ['exp'] }), key],
    ['compression', jwe(TEXT, publicKey, 'RSA-OAEP', { zip: 'DEF' }), key],
    ['four parts', RFC_JWE.split('.').slice(0, 4).join('.'), key],
    ['no JWE', 'hello', key],
    ['nothing', '', key],
  ])('refuses %s, and says that something exists', (_what, text, privateKey) => {
    const open = (): Secret => openJwe(text, privateKey)
    expect(open).toThrow(
      expect.objectContaining({ code: 'bad-answer', effect: 'unknown', retryable: false }) as Error,
    )
    try {
      open()
    } catch (thrown) {
      expectNoLeak(thrown, [TEXT, privateKey.reveal()])
    }
  })
})
