/** `rotate audit` as a user and an auditor use it. */
import { execFileSync } from 'node:child_process'
import { lstatSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import * as shapes from '../contract/secrets.ts'
import { canary, errorOf, expectNoTrace, Sandbox } from './program.ts'

let box: Sandbox
const secret = canary('audited')
/** The environment of an auditor has nothing that could open a vault. */
const auditor = { ROTATE_KEY_FILE: undefined, HOME: '/nonexistent' }

beforeAll(async () => {
  box = await new Sandbox().init()
  await box.run(['set', 'app/prod/KEY', '--reason', '=1+1'], { input: secret })
  await box.run(['set', 'other/prod/KEY'], { input: `${secret}2` })
  writeFileSync(box.path('rotate.pub'), (await box.run(['audit', 'pubkey'])).stdout)
})
afterAll(() => box.dispose())

const verifyExport = (file: string, ...more: string[]) =>
  box.run(['audit', 'verify-export', file, '--pubkey', box.path('rotate.pub'), ...more], {
    env: auditor,
  })

describe('audit verify', () => {
  test('takes the checkpoint it printed as a note, a line, a file or JSON', async () => {
    const { stdout } = await box.run(['audit', 'verify'])
    const line = /^checkpoint (.*)$/m.exec(stdout)?.[1] ?? ''
    const note = stdout.slice(stdout.indexOf('\n\n') + 2)
    writeFileSync(box.path('checkpoint'), stdout)
    const json = await box.json(shapes.auditVerify, ['audit', 'verify'])
    await box.run(['set', 'later/K'], { input: 'x' })
    for (const anchor of [
      line,
      note,
      box.path('checkpoint'),
      json.checkpoint ?? '',
      json.checkpointLine ?? '',
    ])
      expect(
        await box.json(shapes.auditVerify, ['audit', 'verify', '--anchor', anchor]),
        anchor,
      ).toMatchObject({
        ok: true,
        anchored: true,
      })
  })

  test('24 for the checkpoint of another vault or of a future, 2 for what is none', async () => {
    const other = await new Sandbox().init()
    const { checkpointLine } = await other.json(shapes.auditVerify, ['audit', 'verify'])
    other.dispose()
    const foreign = await box.run(['audit', 'verify', '--anchor', checkpointLine ?? '', '--json'])
    expect(foreign.code).toBe(24)
    expect(JSON.parse(foreign.stdout)).toMatchObject({
      data: { ok: false, anchored: false, checkpoint: null },
    })
    expect(errorOf(foreign).details).toMatchObject({ fault: 'foreign' })
    writeFileSync(box.path('future'), JSON.stringify({ rows: 1000, head: 'ab'.repeat(32) }))
    expect((await box.run(['audit', 'verify', '--anchor', box.path('future')])).code).toBe(24)
    writeFileSync(box.path('nonsense'), 'nonsense')
    await box.fails(2, ['audit', 'verify', '--anchor', box.path('nonsense')])
    await box.fails(2, ['audit', 'verify', '--anchor', box.path('missing')])
  })
})

describe('audit export', () => {
  test('as JSON lines is verified by who has only the public key; an edited one is 24', async () => {
    const file = box.path('all.jsonl')
    const done = await box.json(shapes.auditExport, [
      'audit',
      'export',
      '--format',
      'jsonl',
      '-o',
      file,
    ])
    expect(statSync(file).mode & 0o777).toBe(0o600)
    const good = await verifyExport(file, '--json')
    expect(shapes.auditVerifyExport.parse(JSON.parse(good.stdout).data)).toMatchObject({
      ok: true,
      shown: done.rows,
      from: 0,
      withheld: 0,
    })
    const text = readFileSync(file, 'utf8')
    const piped = await box.run(
      [
        'audit',
        'verify-export',
        '-',
        '--pubkey',
        readFileSync(box.path('rotate.pub'), 'utf8').trim(),
      ],
      {
        env: auditor,
        input: text,
      },
    )
    expect(piped.code).toBe(0)
    writeFileSync(box.path('edited.jsonl'), text.replace('"success"', '"failed"'))
    writeFileSync(box.path('cut.jsonl'), text.slice(text.indexOf('\n') + 1))
    for (const name of ['edited.jsonl', 'cut.jsonl'])
      expect(await verifyExport(box.path(name)), name).toMatchObject({ code: 24, stdout: '' })
    const others = (await box.run(['audit', 'pubkey'])).stdout.replace(
      /\+[0-9a-f]{8}\+/,
      '+00000000+',
    )
    expect(
      (await box.run(['audit', 'verify-export', file, '--pubkey', others], { env: auditor })).code,
    ).toBe(2)
    expect((await verifyExport(box.path('missing'))).code).toBe(2)
    expect((await verifyExport(box.home)).code).toBe(2)
    expectNoTrace(box, secret)
  })

  test('of one project hides the others and is verified all the same', async () => {
    const { stdout } = await box.run(['audit', 'export', 'app', '--format', 'jsonl'])
    expect(stdout).toContain('app/prod/KEY')
    expect(stdout).not.toContain('other/prod/KEY')
    writeFileSync(box.path('app.jsonl'), stdout)
    expect((await verifyExport(box.path('app.jsonl'))).code).toBe(0)
  })

  test('as CSV is proven by its note; without one 2', async () => {
    const [file, note] = [box.path('all.csv'), box.path('all.note')]
    expect((await box.run(['audit', 'export', '-o', file, '--note', note])).code).toBe(0)
    expect((await verifyExport(file, '--note', note)).code).toBe(0)
    expect((await verifyExport(file)).code).toBe(2)
    writeFileSync(file, readFileSync(file, 'utf8').replace('manual', 'auto'))
    expect((await verifyExport(file, '--note', note)).code).toBe(24)
  })

  test('into a file that exists, a link, a FIFO or a directory is refused; --force replaces a file only', async () => {
    writeFileSync(box.path('there'), 'precious')
    symlinkSync(box.path('there'), box.path('link'))
    execFileSync('mkfifo', [box.path('fifo')])
    mkdirSync(box.path('directory'))
    for (const name of ['there', 'link', 'fifo', 'directory'])
      await box.fails(2, ['audit', 'export', '-o', box.path(name)])
    for (const name of ['link', 'fifo', 'directory'])
      await box.fails(2, ['audit', 'export', '--force', '-o', box.path(name)])
    expect(readFileSync(box.path('there'), 'utf8')).toBe('precious')
    expect(lstatSync(box.path('fifo')).isFIFO()).toBe(true)
    expect((await box.run(['audit', 'export', '--force', '-o', box.path('there')])).code).toBe(0)
    expect(readFileSync(box.path('there'), 'utf8')).toMatch(/^timestamp,secret,/)
    await box.fails(74, ['audit', 'export', '-o', box.path('no/such/directory')])
  })

  test('to a full device is 74', async () => {
    const { openSync, closeSync } = await import('node:fs')
    const full = openSync('/dev/full', 'w')
    expect((await box.run(['audit', 'export'], { stdout: full })).code).toBe(74)
    closeSync(full)
  })
})

describe('audit prune', () => {
  test('keeps seven years, and says what a shorter time needs', async () => {
    await box.fails(14, ['audit', 'prune', '--older-than', '6y'])
    await box.fails(2, ['audit', 'prune', '--older-than', '6y', '--force'])
    for (const wrong of ['7', '0y', '7d', 'x', '-1y'])
      await box.fails(2, ['audit', 'prune', '--older-than', wrong, '--force', '--reason', 'x'])
    const { head } = await box.json(shapes.auditVerify, ['audit', 'verify'])
    expect(
      await box.json(shapes.auditPrune, ['audit', 'prune', '--older-than', '7y']),
    ).toMatchObject({
      pruned: 0,
      first: null,
      dryRun: false,
    })
    expect(
      await box.json(shapes.auditPrune, [
        'audit',
        'prune',
        '--older-than',
        '1y',
        '--force',
        '--reason',
        'test',
      ]),
    ).toMatchObject({
      pruned: 0,
    })
    expect((await box.json(shapes.auditVerify, ['audit', 'verify'])).head).toBe(head)
  })
})
