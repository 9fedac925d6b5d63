import { readFileSync, writeFileSync } from 'node:fs'
import { parse } from 'csv-parse/sync'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import * as shapes from '../contract/secrets.ts'
import { canary, errorOf, expectNoTrace, Sandbox } from './program.ts'

let box: Sandbox
beforeAll(async () => {
  box = await new Sandbox().init()
})
afterAll(() => box.dispose())

async function valueOf(path: string): Promise<string> {
  return (await box.run(['get', path, '-n'])).stdout
}

describe('import', () => {
  test('dotenv, with a canary that stays in its file', async () => {
    const value = canary('dotenv')
    const file = box.path('.env')
    writeFileSync(
      file,
      `# comment\nexport PLAIN=plain # ` +
        `trailing\nSINGLE='${value.replace("'", '')}'\nDOUBLE="two\nlines"\n\nJSON={"a":1}\n`,
    )
    expect(
      await box.json(shapes.imported, [
        'import',
        file,
        '--into',
        'app/prod',
        '--tier',
        'sensitive',
      ]),
    ).toEqual({
      created: 4,
      updated: 0,
      skipped: 0,
    })
    expect(await valueOf('app/prod/PLAIN')).toBe('plain')
    expect(await valueOf('app/prod/DOUBLE')).toBe('two\nlines')
    expect(await valueOf('app/prod/JSON')).toBe('{"a":1}')
    expect(await box.json(shapes.imported, ['import', file, '--into', 'app/prod'])).toEqual({
      created: 0,
      updated: 0,
      skipped: 4,
    })
    expectNoTrace(box, value.replace("'", ''), { heldBy: [file] })
  })

  test.each([
    ['json', '{"j/one": "1", "j/fields": {"username": "u", "password": "p"}}'],
    ['yaml', 'j/one: 0123\nj/fields:\n  username: u\n  password: "no"\n'],
    ['csv', 'path,value\nj/one,"a ""quoted"", one"\nj/two,x\n'],
  ])('%s from stdin', async (format, text) => {
    const counts = await box.json(
      shapes.imported,
      ['import', '-', '--format', format, '--into', format],
      { input: text },
    )
    expect(counts).toEqual({ created: 2, updated: 0, skipped: 0 })
    expect(await valueOf(`${format}/j/one`)).toBe(
      { json: '1', yaml: '0123', csv: 'a "quoted", one' }[format],
    )
  })

  test.each([
    ['dotenv', 'GOOD=1\nthis is no assignment\n', 2],
    ['dotenv', 'A=1\nB=2\nA=3\n', 3],
    ['dotenv', "A=1\nB='never closed\nC=3\n", 2],
    ['dotenv', 'A=1\nB=\n', 2],
    ['dotenv', 'A=1\na b=2\n', 2],
    ['json', '{"a": "1",\n "b": 2}', 2],
    ['json', '{"a": "1",\n "a": "2"}', 2],
    ['json', '{"a": "1",\n', 2],
    ['yaml', 'a: 1\nb: [1, 2]\n', 2],
    ['yaml', 'a: 1\nb: 2\na: 3\n', 3],
    ['csv', 'path,value\na,1\nb\n', 3],
    ['csv', 'path,value\na,1\n../b,2\n', 3],
    ['csv', 'name,wert\na,1\n', 1],
  ])('%s: %j is refused as a whole, naming line %i', async (format, text, line) => {
    const before = readFileSync(box.vault)
    const result = await box.run(
      ['import', '-', '--format', format, '--into', 'refused', '--json'],
      { input: text },
    )
    expect(result).toMatchObject({ code: 2, stdout: '' })
    expect(errorOf(result).message).toContain(`line ${line}`)
    expect(readFileSync(box.vault).equals(before)).toBe(true)
  })

  test('several thousand in transactions of a thousand', async () => {
    const text = Array.from({ length: 2500 }, (_, i) => `KEY_${i}=value-${i}`).join('\n')
    expect(
      await box.json(shapes.imported, ['import', '-', '--into', 'many'], { input: text }),
    ).toEqual({
      created: 2500,
      updated: 0,
      skipped: 0,
    })
    expect(await valueOf('many/KEY_2499')).toBe('value-2499')
  }, 120_000)
})

describe('audit', () => {
  test('verify, and an anchor kept elsewhere', async () => {
    const verdict = await box.run(['audit', 'verify', '--json'])
    expect(shapes.auditVerify.parse(JSON.parse(verdict.stdout).data)).toMatchObject({
      ok: true,
      firstBad: null,
    })
    writeFileSync(box.path('anchor.json'), verdict.stdout)
    await box.run(['set', 'after/anchor'], { input: 'one more row' })
    expect(
      await box.json(shapes.auditVerify, ['audit', 'verify', '--anchor', box.path('anchor.json')]),
    ).toMatchObject({
      ok: true,
      anchored: true,
    })
    writeFileSync(box.path('anchor.json'), verdict.stdout.replace(/"head":"../, '"head":"00'))
    const bad = await box.run(['audit', 'verify', '--anchor', box.path('anchor.json'), '--json'])
    expect(bad.code).toBe(24)
    expect(JSON.parse(bad.stdout)).toMatchObject({ data: { ok: false, anchored: false } })
    expect(errorOf(bad)).toMatchObject({ code: 'tampered' })
  })

  test('list filters by project, action and path', async () => {
    await box.run(['set', 'my-project/production/K1', '--reason', 'first of all'], {
      input: 'a-secret-of-my-project-1',
    })
    await box.run(['set', 'my-project/production/K1'], { input: 'a-secret-of-my-project-2' })
    await box.run(['set', 'my-project-2/production/K1'], { input: 'another' })
    const all = await box.json(shapes.auditList, ['audit', 'my-project'])
    expect(all.events.map(({ action }) => action)).toEqual(['secret_created', 'secret_updated'])
    const updated = await box.json(shapes.auditList, [
      'audit',
      'my-project',
      '--action',
      'secret_updated',
    ])
    expect(updated.events).toMatchObject([
      { path: 'my-project/production/K1', metadata: { version: 2, old_version: 1 } },
    ])
    expect(
      await box.json(shapes.auditList, ['audit', '--action', 'secret_rotated', 'my-project']),
    ).toEqual({ events: [] })
    expect(
      (
        await box.json(shapes.auditList, [
          'audit',
          'list',
          '--path',
          'my-project/production/K1',
          '--limit',
          '1',
        ])
      ).events,
    ).toHaveLength(1)
  })

  test('export: the header to the letter, rows that parse, formulas defused, the export on record', async () => {
    await box.run(['set', 'formula/K', '--reason', '=HYPERLINK("http://x")', '--actor', '@evil'], {
      input: 'x',
    })
    const { stdout } = await box.run(['audit', 'export', '--format', 'csv'])
    expect(stdout.split('\r\n')[0]).toBe(
      'timestamp,secret,old_key,new_key,triggered_by,status,action,actor,version,reason,run_id,seq,hash',
    )
    const table = parse(stdout, { columns: true }) as Record<string, string>[]
    const row = table.find(({ secret }) => secret === 'formula/K')
    expect(row).toMatchObject({
      actor: "'@evil",
      reason: `'=HYPERLINK("http://x")`,
      triggered_by: 'manual',
      status: 'success',
      version: '1',
    })
    expect(table.every(({ hash }) => /^[0-9a-f]{64}$/.test(hash ?? ''))).toBe(true)
    const lines = (await box.run(['audit', 'export', '--format', 'jsonl'])).stdout
      .trimEnd()
      .split('\n')
    expect(lines.slice(0, -1).map((line) => (JSON.parse(line) as { seq: number }).seq)).toEqual(
      lines.slice(1).map((_, i) => i + 1),
    )
    expect(
      (await box.json(shapes.auditList, ['audit', '--action', 'audit_exported'])).events,
    ).toHaveLength(2)
    const empty = await box.run(['audit', 'export', '--month', '2001-01'])
    expect(empty).toMatchObject({ code: 0, stdout: `${stdout.split('\r\n')[0]}\r\n` })
  })

  test('history of a secret that was never rotated, and of none', async () => {
    expect(await box.json(shapes.history, ['history', 'my-project/production/K1'])).toEqual({
      history: [],
    })
    await box.fails(13, ['history', 'no/such'])
  })
})
