import { chmodSync, existsSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import * as shapes from '../contract/secrets.ts'
import { canary, errorOf, expectNoTrace, Sandbox } from './program.ts'

let box: Sandbox
beforeAll(async () => {
  box = await new Sandbox().init()
})
afterAll(() => box.dispose())

describe('init', () => {
  test('makes vault and key file private, and says so in JSON', async () => {
    const fresh = new Sandbox()
    const data = await fresh.json(shapes.init, ['init'])
    expect(data).toMatchObject({ vault: fresh.vault, unlockers: [{ kind: 'key-file' }] })
    expect(statSync(fresh.vault).mode & 0o777).toBe(0o600)
    expect(statSync(fresh.keyFile).mode & 0o777).toBe(0o600)
    expect(statSync(fresh.path('.local/share/rotate')).mode & 0o777).toBe(0o700)
    const again = await fresh.run(['init', '--json'])
    expect(again).toMatchObject({ code: 15, stdout: '' })
    expect(errorOf(again)).toMatchObject({ code: 'conflict', details: { vault: fresh.vault } })
    fresh.dispose()
  })

  test('without an unlocker and without a terminal: exit 2 naming the flags, nothing made', async () => {
    const fresh = new Sandbox()
    const { stderr } = await fresh.fails(2, ['init'], { env: { ROTATE_KEY_FILE: undefined } })
    expect(stderr).toMatch(/--key-file.*--passphrase-file.*--passphrase-command.*--passphrase-fd/)
    expect(existsSync(fresh.path('.local'))).toBe(false)
    fresh.dispose()
  })

  test('a recovery key opens the vault', async () => {
    const fresh = new Sandbox()
    const data = await fresh.json(shapes.init, ['init', '--recovery-out', fresh.path('recovery')])
    expect(data.unlockers.map(({ kind }) => kind)).toEqual(['key-file', 'recovery'])
    expect(statSync(fresh.path('recovery')).mode & 0o777).toBe(0o600)
    await fresh.run(['set', 'a/b'], { input: 'opened by the recovery key' })
    const got = await fresh.run(['get', 'a/b'], {
      env: { ROTATE_KEY_FILE: undefined, ROTATE_PASSPHRASE_FILE: fresh.path('recovery') },
    })
    expect(got).toMatchObject({ code: 0, stdout: 'opened by the recovery key\n' })
    fresh.dispose()
  })

  test('a failure leaves no key file behind', async () => {
    const fresh = new Sandbox()
    await fresh.fails(16, ['init', '--vault', '/dev/null/rotate/vault.db'])
    expect(existsSync(fresh.keyFile)).toBe(false)
    fresh.dispose()
  })
})

describe('set and get', () => {
  test('a value from stdin, from every spelling of get, and nowhere else', async () => {
    const value = canary('stdin')
    const set = await box.run(
      [
        'set',
        'production/gemini/GEMINI_API_KEY',
        '--type',
        'api_key',
        '--tier',
        'sensitive',
        '--meta',
        'rotated_by=scheduled-job',
      ],
      {
        input: `${value}\n`,
      },
    )
    expect(set).toMatchObject({
      code: 0,
      stdout: 'production/gemini/GEMINI_API_KEY version 1\n',
      stderr: '',
    })
    const shownBy = await Promise.all([
      box.run(['get', 'production/gemini/GEMINI_API_KEY', '--silent']),
      box.run(['get', 'production/gemini/GEMINI_API_KEY']),
      box.run(['get', '-n', 'production/gemini/GEMINI_API_KEY', '-s', '--no-input']),
      box.run(['secrets', 'get', 'production/gemini/GEMINI_API_KEY']),
      box.run(['get', '-p', 'production', '-e', 'gemini', '-k', 'GEMINI_API_KEY']),
      box.run(['--quiet', 'get', 'production/gemini/GEMINI_API_KEY', '--version', '1']),
    ])
    expect(shownBy.map(({ stdout }) => stdout.trimEnd())).toEqual(shownBy.map(() => value))
    expect(shownBy.map(({ stdout }) => stdout.endsWith('\n'))).toEqual([
      true,
      true,
      false,
      true,
      true,
      true,
    ])
    expect(shownBy.map(({ stderr, code }) => [stderr, code])).toEqual(shownBy.map(() => ['', 0]))
    const json = await box.run(['get', 'production/gemini/GEMINI_API_KEY', '--json'])
    expect(shapes.get.parse(JSON.parse(json.stdout).data)).toMatchObject({
      value,
      version: 1,
      label: 'current',
      type: 'api_key',
      tier: 'sensitive',
    })
    await box.run(['list', '--json'])
    await box.run(['show', 'production/gemini/GEMINI_API_KEY', '--json'])
    await box.run(['audit', '--json'])
    expectNoTrace(box, value, { shownBy: [...shownBy, json] })
  })

  test('JSON of set, list, versions and show keep to their shapes; set again makes the old one previous', async () => {
    const values = [canary('one'), canary('two')] as const
    const first = await box.json(
      shapes.set,
      ['set', 'shape/a/KEY', '--tag', 'b', '--tag', 'a', '--note', 'first'],
      { input: values[0] },
    )
    expect(first).toMatchObject({
      version: 1,
      previousVersion: null,
      type: 'generic',
      tier: 'standard',
      tags: ['a', 'b'],
    })
    const second = await box.json(shapes.set, ['set', 'shape/a/KEY'], { input: values[1] })
    expect(second).toMatchObject({ id: first.id, version: 2, previousVersion: 1 })
    const { versions } = await box.json(shapes.versions, ['versions', 'shape/a/KEY'])
    expect(
      versions.map(({ version, labels, state, source, note }) => ({
        version,
        labels,
        state,
        source,
        note,
      })),
    ).toEqual([
      { version: 2, labels: ['current'], state: 'live', source: 'set', note: null },
      { version: 1, labels: ['previous'], state: 'live', source: 'set', note: 'first' },
    ])
    const { secrets } = await box.json(shapes.list, ['ls', 'shape/**'])
    expect(secrets).toMatchObject([
      { id: first.id, path: 'shape/a/KEY', version: 2, versions: 2, status: 'unscheduled' },
    ])
    const { secret } = await box.json(shapes.show, ['show', first.id])
    expect(secret).toMatchObject({
      path: 'shape/a/KEY',
      project: 'shape',
      envLabel: 'a',
      secretKey: 'KEY',
      version: 2,
      fields: ['value'],
    })
    const { secret: checked } = await box.json(shapes.show, ['show', 'shape/a/KEY', '--checklist'])
    expect(checked.checklist?.map(({ status }) => status)).toEqual(['no', 'yes', 'no', 'no', 'yes'])
    const previous = await box.run(['get', 'shape/a/KEY', '--label', 'previous'])
    expect(previous.stdout).toBe(`${values[0]}\n`)
    expectNoTrace(box, values[0], { shownBy: [previous] })
    expectNoTrace(box, values[1])
  })

  test('the current value again is "already so"; an earlier live one becomes current again', async () => {
    await box.run(['set', 'same/KEY'], { input: 'value-number-one' })
    const again = await box.run(['set', 'same/KEY'], { input: 'value-number-one' })
    expect(again).toMatchObject({ code: 0, stdout: 'same/KEY version 1\n' })
    expect(again.stderr).toMatch(/already so/)
    await box.run(['set', 'same/KEY'], { input: 'value-number-two' })
    const back = await box.json(shapes.set, ['set', 'same/KEY'], { input: 'value-number-one' })
    expect(back).toMatchObject({ version: 3, previousVersion: 2 })
    const { versions } = await box.json(shapes.versions, ['versions', 'same/KEY'])
    expect(versions.map(({ version, state, labels }) => [version, state, labels])).toEqual([
      [3, 'live', ['current']],
      [2, 'live', ['previous']],
      [1, 'retired', []],
    ])
  })

  test('--if-version', async () => {
    expect(await box.run(['set', 'cas/KEY', '--if-version', '0'], { input: 'one' })).toMatchObject({
      code: 0,
    })
    await box.fails(15, ['set', 'cas/KEY', '--if-version', '0'], { input: 'two' })
    await box.fails(15, ['set', 'cas/KEY', '--if-version', '7'], { input: 'two' })
    expect(await box.run(['set', 'cas/KEY', '--if-version', '1'], { input: 'two' })).toMatchObject({
      code: 0,
    })
  })

  test('--dry-run stores nothing', async () => {
    const dry = await box.run(['set', 'dry/KEY', '--dry-run'], { input: 'never stored' })
    expect(dry).toMatchObject({ code: 0, stdout: 'dry/KEY version 1\n' })
    await box.fails(13, ['get', 'dry/KEY'])
  })

  test.each([
    ['--generate', /^[A-Za-z0-9_-]{32}\n$/],
    ['--generate=48', /^[A-Za-z0-9_-]{48}\n$/],
    ['--generate=hex:16', /^[0-9a-f]{32}\n$/],
    ['--generate=jwt', /^[A-Za-z0-9_-]{86}\n$/],
  ])('%s', async (flag, pattern) => {
    const path = `generated/${flag.replace(/[^a-z0-9]/g, '_')}`
    const set = await box.run(['set', flag, path])
    expect(set).toMatchObject({ code: 0, stderr: '' })
    const got = await box.run(['get', path])
    expect(got.stdout).toMatch(pattern)
    expectNoTrace(box, got.stdout.trimEnd(), { shownBy: [got] })
  })

  test('fields: several sources, merging, one field, the formats of get', async () => {
    const [secretKey, other] = [canary('field'), canary('merged')]
    writeFileSync(box.path('id'), 'AKIAEXAMPLEKEYID0001\n')
    const set = [
      'set',
      'aws/prod/DEPLOY',
      '--type',
      'aws_access_key',
      '--field',
      `accessKeyId=@${box.path('id')}`,
      '--field',
      'secretAccessKey=@-',
    ]
    expect(await box.run(set, { input: `${secretKey}\n` })).toMatchObject({ code: 0, stderr: '' })
    const whole = await box.run(['get', 'aws/prod/DEPLOY'])
    expect(JSON.parse(whole.stdout)).toEqual({
      accessKeyId: 'AKIAEXAMPLEKEYID0001',
      secretAccessKey: secretKey,
    })
    expect(whole.stdout.split('\n')).toHaveLength(2)
    const one = await box.run(['get', 'aws/prod/DEPLOY', '--field', 'accessKeyId'])
    expect(one.stdout).toBe('AKIAEXAMPLEKEYID0001\n')
    await box.fails(13, ['get', 'aws/prod/DEPLOY', '--field', 'nope'])
    const process = await box.run([
      'get',
      'aws/prod/DEPLOY',
      '--format',
      'credential-process',
      '--no-input',
    ])
    expect(JSON.parse(process.stdout)).toEqual({
      Version: 1,
      AccessKeyId: 'AKIAEXAMPLEKEYID0001',
      SecretAccessKey: secretKey,
    })
    await box.run(['set', 'aws/prod/DEPLOY', '--field', 'secretAccessKey=env:OTHER'], {
      env: { OTHER: other },
    })
    const merged = await box.run(['get', 'aws/prod/DEPLOY', '--json'])
    expect(JSON.parse(merged.stdout).data).toMatchObject({
      version: 2,
      value: { accessKeyId: 'AKIAEXAMPLEKEYID0001', secretAccessKey: other },
    })
    await box.fails(2, ['set', 'aws/prod/DEPLOY'], { input: 'one value for two fields' })
    expectNoTrace(box, secretKey, { shownBy: [whole, process] })
    expectNoTrace(box, other, { shownBy: [merged] })
  })

  test('--format env can be read back by a shell, or is refused', async () => {
    await box.run(['set', 'env/APP_TOKEN'], { input: 'a b$c`d"e\\f\nsecond line' })
    const { stdout } = await box.run(['get', 'env/APP_TOKEN', '--format', 'env'])
    writeFileSync(box.path('env.sh'), `${stdout}printf %s "$APP_TOKEN"`)
    const { execFileSync } = await import('node:child_process')
    expect(execFileSync('/bin/sh', [box.path('env.sh')], { encoding: 'utf8' })).toBe(
      'a b$c`d"e\\f\nsecond line',
    )
    await box.run(['set', 'env/QUOTES'], { input: `it's "$HOME"` })
    await box.fails(2, ['get', 'env/QUOTES', '--format', 'env'])
  })

  test('bytes that are no text: exact in a pipe and a file, base64 in JSON', async () => {
    const bytes = Buffer.from([0, 255, 254, 10, 0, 13, 10, 128])
    await box.run(['set', 'binary/KEY', '--keep-newline'], { input: bytes })
    expect((await box.run(['get', 'binary/KEY', '-n'])).stdoutBytes).toEqual(bytes)
    const data = await box.json(shapes.get, ['get', 'binary/KEY'])
    expect(data).toMatchObject({ encoding: 'base64', value: bytes.toString('base64') })
    expect(
      await box.run(['get', 'binary/KEY', '-n', '--out-file', box.path('out.bin')]),
    ).toMatchObject({ code: 0, stdout: '' })
    expect(readFileSync(box.path('out.bin'))).toEqual(bytes)
    expect(statSync(box.path('out.bin')).mode & 0o777).toBe(0o600)
    symlinkSync(box.path('elsewhere'), box.path('link'))
    await box.fails(2, ['get', 'binary/KEY', '--out-file', box.path('link')])
    expect(existsSync(box.path('elsewhere'))).toBe(false)
  })

  test('one mebibyte goes in and out whole; one byte more is refused', async () => {
    const value = Buffer.alloc(1024 * 1024, 'abcdefghij\n')
    expect(await box.run(['set', 'big/KEY', '--keep-newline'], { input: value })).toMatchObject({
      code: 0,
    })
    expect((await box.run(['get', 'big/KEY', '-n'])).stdoutBytes.equals(value)).toBe(true)
    await box.fails(2, ['set', 'big/KEY', '--keep-newline'], {
      input: Buffer.alloc(1024 * 1024 + 1, 'x'),
    })
    await box.fails(2, ['set', 'big/KEY'], { stdin: 'never-ends' })
  })

  test('tier critical: reading leaves an audit row, and is refused where none can be written', async () => {
    await box.run(['set', 'critical/KEY', '--tier', 'critical'], { input: 'closely guarded' })
    expect(await box.run(['get', 'critical/KEY', '-s'])).toMatchObject({
      code: 0,
      stdout: 'closely guarded\n',
    })
    const { events } = await box.json(shapes.auditList, ['audit', '--action', 'secret_read'])
    expect(events).toMatchObject([
      { path: 'critical/KEY', triggeredBy: 'manual', metadata: { version: 1 } },
    ])
  })

  test('get writes nothing: a vault and directory that are read-only will do', async () => {
    const fresh = await new Sandbox().init()
    await fresh.run(['set', 'a/b'], { input: 'readable' })
    chmodSync(fresh.vault, 0o400)
    const before = readFileSync(fresh.vault)
    expect(await fresh.run(['get', 'a/b', '-s'])).toMatchObject({ code: 0, stdout: 'readable\n' })
    expect(readFileSync(fresh.vault).equals(before)).toBe(true)
    fresh.dispose()
  })
})

describe('rm, restore, mv', () => {
  test('deleting is reversible, purging is not and wants --yes', async () => {
    const value = canary('purged')
    await box.run(['set', 'gone/KEY'], { input: value })
    await box.json(shapes.removed, ['rm', 'gone/KEY'])
    await box.fails(13, ['get', 'gone/KEY'])
    expect((await box.json(shapes.list, ['list', 'gone'])).secrets).toEqual([])
    expect(
      (await box.json(shapes.list, ['list', 'gone', '--status', 'deleted'])).secrets,
    ).toHaveLength(1)
    await box.json(shapes.restored, ['restore', 'gone/KEY'])
    const back = await box.run(['get', 'gone/KEY'])
    expect(back.stdout).toBe(`${value}\n`)
    const { stderr } = await box.fails(2, ['rm', 'gone/KEY', '--purge'])
    expect(stderr).toMatch(/--yes/)
    await box.json(shapes.purged, ['rm', 'gone/KEY', '--purge', '--yes'])
    await box.fails(13, ['versions', 'gone/KEY'])
    expectNoTrace(box, value, { shownBy: [back] })
  })

  test('a deleted secret that is set again lives on with the next number', async () => {
    await box.run(['set', 'phoenix/KEY'], { input: 'first life' })
    await box.run(['rm', 'phoenix/KEY'])
    expect(
      await box.json(shapes.set, ['set', 'phoenix/KEY'], { input: 'second life' }),
    ).toMatchObject({ version: 2, previousVersion: 1 })
  })

  test('mv keeps id and versions; a taken name is refused', async () => {
    await box.run(['set', 'move/a'], { input: 'moved value' })
    const moved = await box.json(shapes.moved, ['mv', 'move/a', 'move/b'])
    expect(moved).toMatchObject({ from: 'move/a', path: 'move/b' })
    await box.fails(13, ['get', 'move/a'])
    expect(await box.run(['get', moved.id])).toMatchObject({ stdout: 'moved value\n' })
    await box.run(['set', 'move/c'], { input: 'other' })
    await box.fails(15, ['mv', 'move/c', 'move/b'])
  })
})
