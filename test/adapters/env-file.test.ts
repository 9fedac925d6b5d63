import { execFileSync, spawnSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  watch,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parse } from 'dotenv'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { Secret } from '../../src/core/secret.ts'
import type { TargetSession } from '../../src/core/target.ts'
import { createSpawn } from '../../src/net/spawn.ts'
import envFile from '../../src/targets/env-file.ts'
import { expectNoLeak } from '../conformance/_shared.ts'
import { documentSuite } from '../conformance/document.suite.ts'
import { targetSuite } from '../conformance/target.suite.ts'
import { testContext } from '../fakes/context.ts'

/** For scripts that run in a process of their own. */
const SECRET = new URL('../../src/core/secret.ts', import.meta.url).href

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'rotate-env-'))
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

targetSuite('env-file', envFile, () => {
  const path = join(dir, '.env')
  return {
    config: { path },
    read: (name) => (existsSync(path) ? parse(readFileSync(path)) : {})[name],
    failNext: () => {
      rmSync(path, { force: true })
      mkdirSync(path)
    },
  }
})

/** Actions of somebody else just before and after the new file gets its name. */
const renaming: {
  before?: (() => void | Promise<void>) | undefined
  after?: (() => void | Promise<void>) | undefined
} = {}
vi.mock('node:fs/promises', async (original) => {
  const real = await original<typeof import('node:fs/promises')>()
  const rename: typeof real.rename = async (from, to) => {
    const { before, after } = renaming
    Object.assign(renaming, { before: undefined, after: undefined })
    await before?.()
    await real.rename(from, to)
    await after?.()
  }
  return { ...real, rename }
})

documentSuite('env-file', envFile, () => {
  const path = join(dir, '.env')
  writeFileSync(
    path,
    '# head\r\nexport OURS = "before"#note\r\nNEIGHBOUR=\'theirs\' # their note\r\nLAST="x"',
  )
  mkdirSync(join(dir, 'other'))
  symlinkSync(dir, join(dir, 'other', 'link'))
  return {
    config: { path },
    alias: { path: join(dir, 'other', 'link', '.env') },
    elsewhere: { path: join(dir, 'other', '.env') },
    read: (name) => parse(readFileSync(path))[name],
    // Writes the file in place, as an editor or a script does.
    write: (name, value) => {
      writeFileSync(
        path,
        readFileSync(path, 'utf8').replace(
          new RegExp(`^((?:export )?${name}) ?=.*?(\\r?)$`, 'm'),
          `$1='${value}'$2`,
        ),
      )
    },
    between: (act) => {
      renaming.before = act
    },
    after: (act) => {
      renaming.after = act
    },
    whole: () => `${statSync(path).mode} ${readFileSync(path, 'utf8')}`,
  }
})

const open = (path: string): Promise<TargetSession> => envFile.open({ path }, testContext())
const entriesOf = (values: Record<string, string>): Record<string, Secret> =>
  Object.fromEntries(Object.entries(values).map(([name, value]) => [name, new Secret(value)]))
async function put(path: string, values: Record<string, string>): Promise<void> {
  const entries = entriesOf(values)
  await (await open(path)).put({ id: 'd', path: 'p', version: 1, entries, fields: entries })
}

/** The values that the three real readers find in the file. */
function readers(
  path: string,
  name: string,
): { dotenv: string | undefined; node: string | undefined; sh: string } {
  const env = { PATH: process.env['PATH'] ?? '' }
  const print = `process.stdout.write(JSON.stringify(process.env[${JSON.stringify(name)}] ?? null))`
  const node: unknown = JSON.parse(
    execFileSync(process.execPath, [`--env-file=${path}`, '-e', print], { env, encoding: 'utf8' }),
  )
  const sh = execFileSync('/bin/sh', ['-c', `set -a; . "$0"; printf '%sX' "$${name}"`, path], {
    env,
    encoding: 'utf8',
  }).slice(0, -1)
  return { dotenv: parse(readFileSync(path))[name], node: node as string | undefined, sh }
}

test('neighbours are the other entries of the file, as dotenv reads them; a missing file has none', async () => {
  const path = join(dir, '.env')
  expect(await (await open(path)).neighbours?.(['DB_PASSWORD'])).toEqual({})
  writeFileSync(
    path,
    "# DB_OLD=app_z\nDB_USER='app_a'\nexport DB_HOST=db.test # here\nDB_PASSWORD=x\nEMPTY=\n",
    { mode: 0o600 },
  )
  const beside = (await (await open(path)).neighbours?.(['DB_PASSWORD', 'DB_USERNAME'])) ?? {}
  expect(Object.entries(beside).map(([name, value]) => `${name} ${value.reveal()}`)).toEqual([
    'DB_USER app_a',
    'DB_HOST db.test',
    'EMPTY ',
  ])
})

describe('what is written is read back by dotenv, node --env-file and sh', () => {
  const nasty = fc
    .array(
      fc.oneof(
        fc.constantFrom(
          "'",
          '"',
          '`',
          '\\',
          '$',
          '#',
          ' ',
          '\n',
          '\t',
          '=',
          'export ',
          '$(id)',
          '${A}',
          '\\n',
          '!',
          '%',
          '~',
          '&',
          ';',
          '|',
          '*',
          '\u00a0',
          '\u2028',
          'é',
          '😀',
          '\ufeff',
        ),
        fc.string({ minLength: 1, maxLength: 6 }),
      ),
      { maxLength: 8 },
    )
    .map((parts) => parts.join('').replaceAll('\0', ''))
    .filter((value) => value.isWellFormed())
  const files = fc.constantFrom(
    '',
    'A=1\n',
    'A=1',
    '# comment with \' a quote\nA=1\nexport KEY=old # why\nB="x y"\nKEY=again\n',
    "B='two\nlines'\nKEY='old'\nC=3\n",
    'KEY=\nB=2\n',
    '\n\n  KEY = spaced  \nB=2\n',
    'KEY: yaml\nB=2\n',
    '\ufeffKEY=old\nB=2\n',
  )

  test('or it is refused and the file stays as it was', async () => {
    let written = 0
    let refused = 0
    await fc.assert(
      fc.asyncProperty(nasty, files, async (value, before) => {
        const path = join(dir, 'prop.env')
        writeFileSync(path, before)
        const others = { ...parse(before), KEY: undefined }
        const error = await put(path, { KEY: value }).then(
          () => undefined,
          (thrown: unknown) => thrown,
        )
        if (error !== undefined) {
          refused++
          expect(error).toMatchObject({ code: 'misconfigured', effect: 'none', retryable: false })
          expectNoLeak(error, value.length >= 8 ? [value] : [])
          expect(readFileSync(path, 'utf8')).toBe(before)
          expect(/['\r]/.test(value) || /'/.test(before), 'refused without need').toBe(true)
          return
        }
        written++
        expect({ ...parse(readFileSync(path)), KEY: undefined }).toEqual(others)
        expect(parse(readFileSync(path))['KEY']).toBe(value)
        // sh and Node always take a byte order mark for a part of the first name.
        if (!before.startsWith('\ufeff'))
          expect(readers(path, 'KEY')).toEqual({ dotenv: value, node: value, sh: value })
      }),
      { numRuns: 120, seed: 20261121 },
    )
    expect(written).toBeGreaterThan(60)
    expect(refused).toBeGreaterThan(0)
  }, 120_000)

  test('putting back what was there gives the same bytes', async () => {
    await fc.assert(
      fc.asyncProperty(nasty, files, async (value, before) => {
        const path = join(dir, 'undo.env')
        writeFileSync(path, before)
        const session = await open(path)
        const stood = await session.standing?.(['KEY']).catch(() => undefined)
        // A file with two different values of one name is refused before anything is
        // written.
        expect(stood === undefined).toBe(before.includes('again'))
        if (stood === undefined) return
        try {
          await put(path, { KEY: value })
        } catch {
          return
        }
        await session.restore(stood.values, undefined, stood.rest)
        expect(readFileSync(path, 'utf8')).toBe(before)
      }),
      { numRuns: 400, seed: 7 },
    )
  })

  test('a multi-line key in PEM form', async () => {
    const path = join(dir, '.env')
    const pem = `-----BEGIN KEY-----\n${'QUJD/+='.repeat(9)}\n-----END KEY-----\n`
    await put(path, { KEY: pem })
    expect(readers(path, 'KEY')).toEqual({ dotenv: pem, node: pem, sh: pem })
  })
})

describe('the rest of the file stays', () => {
  const text = '# head\n\nexport A="old"   # note\nB=2\n#A=commented\nA=older#tight\nC: "yaml"\n\n'

  test('every active assignment is replaced in its own style, comments and order stay', async () => {
    const path = join(dir, '.env')
    writeFileSync(path, text)
    await put(path, { A: 'new', C: 'see', D: 'x y' })
    expect(readFileSync(path, 'utf8')).toBe(
      '# head\n\nexport A="new"   # note\nB=2\n#A=commented\nA=new #tight\nC="see"\n\nD=\'x y\'\n',
    )
  })

  test.each([
    ['CRLF', 'A=1\r\nB=2\r\n', 'A=x\r\nB=2\r\nN=y\r\n'],
    ['no end of the last line', 'A=1\nB=2', 'A=x\nB=2\nN=y'],
    ['a byte order mark', '\ufeffA=1\n', '\ufeffA=x\nN=y\n'],
    ['an empty file', '', 'A=x\nN=y\n'],
    ['only comments', '# a\n', '# a\nA=x\nN=y\n'],
  ])('%s', async (_what, before, after) => {
    const path = join(dir, '.env')
    writeFileSync(path, before)
    await put(path, { A: 'x', N: 'y' })
    expect(readFileSync(path, 'utf8')).toBe(after)
  })

  test('an assignment inside a quoted value of another name is no assignment', async () => {
    const path = join(dir, '.env')
    writeFileSync(path, "B='one\nA=not this\n'\nA=this\n")
    await put(path, { A: 'new' })
    expect(readFileSync(path, 'utf8')).toBe("B='one\nA=not this\n'\nA=new\n")
  })
})

describe('what it refuses', () => {
  test.each([
    ['a carriage return', 'a\rb', /carriage return/],
    ['a NUL byte', 'a\0b', /NUL/],
    ["' with $", "it's $5", /\$/],
    ["' with a newline", "it's\ntwo", /newline/],
  ])('%s', async (_what, value, why) => {
    const path = join(dir, '.env')
    writeFileSync(path, 'A=1\n')
    await expect(put(path, { A: value })).rejects.toMatchObject({
      code: 'misconfigured',
      effect: 'none',
      message: expect.stringMatching(why) as string,
    })
    expect(readFileSync(path, 'utf8')).toBe('A=1\n')
    expect(readdirSync(dir)).toEqual(['.env'])
  })

  test('what would make dotenv read the rest of the file differently', async () => {
    const path = join(dir, '.env')
    // dotenv takes \' for a quote inside the value and reads on to the one in the
    // comment.
    writeFileSync(path, "A=1\n# it'\nB=2\n")
    const error = await put(path, { A: 'ends with \\' }).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({
      code: 'misconfigured',
      message: expect.stringContaining('rest of the file') as string,
    })
    expect(readFileSync(path, 'utf8')).toBe("A=1\n# it'\nB=2\n")
    writeFileSync(path, 'A=1\n# it\nB=2\n')
    await put(path, { A: 'ends with \\' })
    expect(readers(path, 'A')).toEqual({
      dotenv: 'ends with \\',
      node: 'ends with \\',
      sh: 'ends with \\',
    })
  })

  test('bytes that are not text', async () => {
    const path = join(dir, '.env')
    const entries = { A: new Secret(new Uint8Array([0xff, 0x00])) }
    await expect(
      (await open(path)).put({ id: 'd', path: 'p', version: 1, entries, fields: entries }),
    ).rejects.toMatchObject({
      code: 'misconfigured',
    })
    expect(existsSync(path)).toBe(false)
  })

  test('one bad entry of several writes none', async () => {
    const path = join(dir, '.env')
    writeFileSync(path, 'A=1\n')
    await expect(put(path, { A: 'good', B: "bad'\n" })).rejects.toMatchObject({ effect: 'none' })
    expect(readFileSync(path, 'utf8')).toBe('A=1\n')
  })

  test.each(['1A', 'A-B', 'A B', 'A=B', '', 'A\nB'])('the name %j', async (name) => {
    await expect(put(join(dir, '.env'), { [name]: 'x' })).rejects.toMatchObject({
      code: 'misconfigured',
      effect: 'none',
    })
  })

  test('a symbolic link, also a dangling one, is neither followed nor replaced', async () => {
    const link = join(dir, 'link.env')
    symlinkSync(join(dir, 'real.env'), link)
    await expect(put(link, { A: 'x' })).rejects.toMatchObject({
      code: 'misconfigured',
      message: expect.stringContaining('symbolic link') as string,
    })
    writeFileSync(join(dir, 'real.env'), 'A=1\n')
    await expect(put(link, { A: 'x' })).rejects.toMatchObject({ code: 'misconfigured' })
    await expect(envFile.settleConfig({ path: link }, testContext())).rejects.toMatchObject({
      code: 'misconfigured',
    })
    expect(readFileSync(join(dir, 'real.env'), 'utf8')).toBe('A=1\n')
  })

  test('a missing directory, a directory, a file that is not text', async () => {
    await expect(put(join(dir, 'none', '.env'), { A: 'x' })).rejects.toMatchObject({
      code: 'missing',
      effect: 'none',
    })
    await expect(
      envFile.settleConfig({ path: join(dir, 'none', '.env') }, testContext()),
    ).rejects.toMatchObject({ code: 'missing' })
    await expect(put(dir, { A: 'x' })).rejects.toMatchObject({ code: 'misconfigured' })
    writeFileSync(join(dir, 'latin'), Buffer.from([0x41, 0x3d, 0xe9, 0x0a]))
    await expect(put(join(dir, 'latin'), { A: 'x' })).rejects.toMatchObject({
      code: 'misconfigured',
      message: expect.stringContaining('UTF-8') as string,
    })
  })
})

describe('an undo', () => {
  const undone = async (
    path: string,
    names: readonly string[],
    between: () => Promise<void> | void,
  ): Promise<void> => {
    const session = await open(path)
    const stood = await session.standing?.(names)
    await put(path, Object.fromEntries(names.map((name) => [name, `new of ${name}`])))
    await between()
    await session.restore(stood?.values, undefined, stood?.rest)
  }

  test('takes a file away that was not there, unless somebody has written into it', async () => {
    const path = join(dir, '.env')
    await undone(path, ['A', 'B'], () => undefined)
    expect(readdirSync(dir)).toEqual([])
    await undone(path, ['A'], () => put(path, { C: 'theirs' }))
    expect(readFileSync(path, 'utf8')).toBe('C=theirs\n')
    writeFileSync(path, '')
    await undone(path, ['A'], () => undefined)
    expect(readFileSync(path, 'utf8')).toBe('')
  })

  test('gives each of several equal assignments its own spelling back, and leaves a comment that was changed', async () => {
    const path = join(dir, '.env')
    writeFileSync(path, 'A=x#1\nexport A = "x" # 2\n')
    await undone(path, ['A'], () =>
      writeFileSync(path, readFileSync(path, 'utf8').replace('# 2', '# two')),
    )
    expect(readFileSync(path, 'utf8')).toBe('A=x#1\nexport A = "x" # two\n')
  })

  test('writes a line that somebody has taken away as it was', async () => {
    const path = join(dir, '.env')
    writeFileSync(path, 'export A="x" # why\nB=1\n')
    await undone(path, ['A'], () => writeFileSync(path, 'B=1\n'))
    expect(readFileSync(path, 'utf8')).toBe('B=1\nexport A="x" # why\n')
  })

  test('of a name with several values is refused before anything is written, by name and line', async () => {
    const path = join(dir, '.env')
    writeFileSync(path, 'A=first-value\nB=1\nA=second-value\n')
    const error: unknown = await (
      await open(path)
    )
      .standing?.(['B', 'A'])
      .catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({
      code: 'misconfigured',
      effect: 'none',
      message: expect.stringMatching(/ A several .*lines 1, 3/) as string,
    })
    expectNoLeak(error, ['first-value', 'second-value'])
  })

  test('what stands under a name with several values is not told, until our own write has made them one', async () => {
    const path = join(dir, '.env')
    writeFileSync(path, 'A=first-value\nB=1\nA=second-value\n')
    const session = await open(path)
    const error: unknown = await session.current?.(['B', 'A']).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({
      code: 'misconfigured',
      effect: 'none',
      message: expect.stringMatching(/ A several .*lines 1, 3/) as string,
    })
    expectNoLeak(error, ['first-value', 'second-value'])
    expect((await session.current?.(['B']))?.['B']?.reveal()).toBe('1')
    await put(path, { A: 'new value' })
    expect((await session.current?.(['A']))?.['A']?.reveal()).toBe('new value')
    writeFileSync(path, 'A=same\nexport A="same"\n')
    expect((await session.current?.(['A']))?.['A']?.reveal()).toBe('same')
  })

  test('of a run by an earlier program, which kept no spelling, gives the value back', async () => {
    const path = join(dir, '.env')
    writeFileSync(path, 'A="x"\n')
    await put(path, { A: 'new' })
    await (await open(path)).restore({ A: new Secret('x') }, undefined)
    expect(parse(readFileSync(path))).toEqual({ A: 'x' })
  })
})

describe('the file itself', () => {
  test('a new file is private, an old one keeps its mode', async () => {
    const path = join(dir, '.env')
    await put(path, { A: 'x' })
    expect(statSync(path).mode & 0o777).toBe(0o600)
    chmodSync(path, 0o640)
    await put(path, { A: 'y' })
    expect(statSync(path).mode & 0o777).toBe(0o640)
  })

  test.skipIf(process.getuid?.() !== 0)(
    'its owner and its group stay, and who could not keep them does not begin',
    async () => {
      const path = join(dir, '.env')
      writeFileSync(path, 'A=1\n')
      chownSync(path, 65_534, 60_000)
      await put(path, { A: '2' })
      expect(statSync(path)).toMatchObject({ uid: 65_534, gid: 60_000 })
      chownSync(dir, 1, 1)
      const module = new URL('../../src/targets/env-file.ts', import.meta.url).href
      const secret = new URL('../../src/core/secret.ts', import.meta.url).href
      // The modules are loaded before the process gives up its rights, because the tree
      // may lie in a directory that only root can read.
      const script = `
      const { default: target } = await import(${JSON.stringify(module)})
      const { Secret } = await import(${JSON.stringify(secret)})
      await import('dotenv')
      const session = await target.open({ path: process.argv[1] }, {})
      process.setgroups([]); process.setgid(1); process.setuid(1)
      const entries = { A: new Secret('3') }
      const put = () => session.put({ id: 'd', path: 'p', version: 1, entries, fields: {} })
      const said = ({ code, effect, message }) => [code, effect, message].join(' ')
      for (const call of [() => session.probe(), put])
        console.log(await call().then(() => 'done', said))`
      const told = (): string =>
        execFileSync(process.execPath, ['--input-type=module', '-e', script, path], {
          encoding: 'utf8',
          cwd: new URL('../..', import.meta.url),
        })
      chmodSync(path, 0o666)
      expect(told().match(/^denied none .* belongs to the user 65534/gm)).toHaveLength(2)
      chownSync(path, 1, 60_000)
      expect(told().match(/^denied none .* belongs to the group 60000/gm)).toHaveLength(2)
      expect([readFileSync(path, 'utf8'), readdirSync(dir)]).toEqual(['A=2\n', ['.env']])
      chownSync(path, 1, 1)
      expect(told()).toBe('done\ndone\n')
      expect([statSync(path).uid, statSync(path).gid, readFileSync(path, 'utf8')]).toEqual([
        1,
        1,
        'A=3\n',
      ])
    },
  )

  test('its access list stays, and where it could not the probe says so', async ({ skip }) => {
    const path = join(dir, '.env')
    writeFileSync(path, 'A=1\n', { mode: 0o640 })
    if (spawnSync('setfacl', ['-m', 'u:daemon:r', path]).status !== 0)
      return skip('no setfacl, or a file system without access lists')
    const list = (): string =>
      execFileSync('getfacl', ['-c', '--absolute-names', path], { encoding: 'utf8' })
    const before = list()
    expect(before).toContain('user:daemon:r--')
    await put(path, { A: '2' })
    expect([readFileSync(path, 'utf8'), list()]).toEqual(['A=2\n', before])
    await (await open(path)).probe()
    // On this system `cp` can't copy attributes.
    writeFileSync(join(dir, 'cp'), '#!/bin/sh\nexit 0\n', { mode: 0o755 })
    const spawn = createSpawn({ path: `${dir}:${process.env['PATH']}`, cwd: dir, home: dir })
    const session = await envFile.open({ path }, testContext({ spawn }))
    const refused = {
      code: 'denied',
      effect: 'none',
      message: expect.stringContaining('access list') as string,
    }
    await expect(session.probe()).rejects.toMatchObject(refused)
    const entries = entriesOf({ A: '3' })
    await expect(
      session.put({ id: 'd', path: 'p', version: 1, entries, fields: entries }),
    ).rejects.toMatchObject(refused)
    expect([readFileSync(path, 'utf8'), readdirSync(dir).toSorted()]).toEqual([
      'A=2\n',
      ['.env', 'cp'],
    ])
  })

  test('a default access list of its directory, which would open it to others, is refused and never inherited', async ({
    skip,
  }) => {
    const path = join(dir, '.env')
    if (spawnSync('setfacl', ['-m', 'u:daemon:r', dir]).status !== 0)
      return skip('no setfacl, or a file system without access lists')
    writeFileSync(path, 'A=1\n', { mode: 0o640 })
    // This access list holds for the directory alone.
    await (await open(path)).probe()
    await put(path, { A: '2' })
    execFileSync('setfacl', ['-d', '-m', 'u:daemon:r', dir])
    await (await open(path)).probe()
    await put(path, { A: '2b' })
    expect(
      execFileSync('getfacl', ['-c', '--absolute-names', path], { encoding: 'utf8' }),
    ).not.toContain('daemon')
    // On this system `cp` can't remove the list again.
    const tools = mkdtempSync(join(tmpdir(), 'rotate-cp-'))
    writeFileSync(join(tools, 'cp'), '#!/bin/sh\nexit 0\n', { mode: 0o755 })
    const spawn = createSpawn({ path: `${tools}:${process.env['PATH']}`, cwd: dir, home: dir })
    const session = await envFile.open({ path }, testContext({ spawn }))
    const refused = {
      code: 'misconfigured',
      effect: 'none',
      message: expect.stringContaining('access list') as string,
      hints: [expect.stringContaining(`setfacl -k ${dir}`)],
    }
    await expect(session.probe()).rejects.toMatchObject(refused)
    const entries = entriesOf({ A: '3' })
    await expect(
      session.put({ id: 'd', path: 'p', version: 1, entries, fields: entries }),
    ).rejects.toMatchObject(refused)
    rmSync(tools, { recursive: true })
    expect([readFileSync(path, 'utf8'), readdirSync(dir)]).toEqual(['A=2b\n', ['.env']])
    // A file with a list of its own keeps exactly that list, and a new file is open to
    // nobody else.
    await put(join(dir, 'new.env'), { A: '1' })
    expect(
      execFileSync('getfacl', ['-c', '--absolute-names', join(dir, 'new.env')], {
        encoding: 'utf8',
      }),
    ).toContain('mask::---')
    execFileSync('setfacl', ['-m', 'u:bin:r', path])
    await session.probe()
    await put(path, { A: '4' })
    expect(
      execFileSync('getfacl', ['-c', '--absolute-names', path], { encoding: 'utf8' }),
    ).not.toContain('daemon')
    execFileSync('setfacl', ['-b', path])
    execFileSync('setfacl', ['-k', dir])
    await session.probe()
    await put(path, { A: '5' })
    expect(readFileSync(path, 'utf8')).toBe('A=5\n')
  })

  test.skipIf(process.getuid?.() !== 0 || process.platform !== 'linux')(
    'a single file that is mounted is found by the probe',
    ({ skip }) => {
      if (spawnSync('unshare', ['-m', 'true']).status !== 0) return skip('no right to mount here')
      writeFileSync(join(dir, 'host env'), 'A=1\n')
      mkdirSync(join(dir, 'with space'))
      writeFileSync(join(dir, 'with space', '.env'), '')
      const module = new URL('../../src/targets/env-file.ts', import.meta.url).href
      const script = `
      const { default: target } = await import(${JSON.stringify(module)})
      const session = await target.open({ path: process.argv[1] }, {})
      const said = ({ code, message, hints }) => [code, message, hints].join(' ')
      console.log(await session.probe().then(() => 'done', said))
      const { Secret } = await import(${JSON.stringify(SECRET)})
      const within = await target.open({ path: process.argv[1], write: 'in-place' }, {})
      await within.probe()
      await within.put({ id: 'd', path: 'p', version: 1, entries: { A: new Secret('within') }, fields: {} })`
      const run =
        'mount --bind "$1/host env" "$1/with space/.env" && "$2" --input-type=module -e "$3" ' +
        '"$1/with space/.env"'
      const told = execFileSync(
        'unshare',
        ['-m', 'sh', '-c', run, 'sh', dir, process.execPath, script],
        { encoding: 'utf8' },
      )
      expect(told).toMatch(
        /^misconfigured .* is mounted as a single file.* mount its directory, or "write":"in-place"/,
      )
      expect(readFileSync(join(dir, 'host env'), 'utf8')).toBe('A=within\n')
    },
  )

  test('one that has further names (hard links) is refused by the probe, since they would keep the old value', async () => {
    const path = join(dir, '.env')
    writeFileSync(path, 'A=1\n')
    linkSync(path, join(dir, 'second'))
    await expect((await open(path)).probe()).rejects.toMatchObject({
      code: 'misconfigured',
      effect: 'none',
      message: expect.stringContaining('2 names') as string,
    })
    rmSync(join(dir, 'second'))
    await (await open(path)).probe()
  })

  test('its extended attributes stay, and where they could not the probe says so', async ({
    skip,
  }) => {
    const path = join(dir, '.env')
    writeFileSync(path, 'A=1\n', { mode: 0o640 })
    const attribute = (code: string): string | undefined => {
      const { status, stdout } = spawnSync('python3', ['-c', `import os,sys\n${code}`, path], {
        encoding: 'utf8',
      })
      return status === 0 ? stdout.trim() : undefined
    }
    if (attribute("os.setxattr(sys.argv[1], 'user.owner', b'team \\0 one')") === undefined)
      return skip('no python3, or a file system without attributes')
    const shown = (): string | undefined =>
      attribute("print(os.getxattr(sys.argv[1], 'user.owner'))")
    const before = shown()
    expect(before).toContain('team')
    const { mtimeMs } = statSync(path)
    await (await open(path)).probe()
    await put(path, { A: '2' })
    expect([readFileSync(path, 'utf8'), shown(), readdirSync(dir)]).toEqual([
      'A=2\n',
      before,
      ['.env'],
    ])
    expect(statSync(path).mtimeMs).toBeGreaterThan(mtimeMs)
    const tools = mkdtempSync(join(tmpdir(), 'rotate-cp-'))
    writeFileSync(join(tools, 'cp'), '#!/bin/sh\nexit 0\n', { mode: 0o755 })
    const spawn = createSpawn({ path: `${tools}:${process.env['PATH']}`, cwd: dir, home: dir })
    const session = await envFile.open({ path }, testContext({ spawn }))
    await expect(session.probe()).rejects.toMatchObject({
      code: 'denied',
      effect: 'none',
      message: expect.stringContaining('extended attributes') as string,
      hints: [expect.stringContaining('"write":"in-place"')],
    })
    rmSync(tools, { recursive: true })
    expect(readdirSync(dir)).toEqual(['.env'])
  })

  test.each([
    ['immutable', 'i'],
    ['append-only', 'a'],
  ])(
    'one that is marked %s is refused by the probe, however it would be written',
    async (word, flag) => {
      const path = join(dir, '.env')
      writeFileSync(path, 'A=1\n')
      if (spawnSync('chattr', [`+${flag}`, path]).status !== 0) return
      try {
        for (const write of ['replace', 'in-place']) {
          const session = await envFile.open({ path, write }, testContext())
          const refused = {
            code: 'denied',
            effect: 'none',
            message: expect.stringContaining(word) as string,
          }
          await expect(session.probe()).rejects.toMatchObject(refused)
        }
      } finally {
        execFileSync('chattr', [`-${flag}`, path])
      }
      await (await open(path)).probe()
    },
  )

  test('in place it stays the same file under all its names, and an undo gives back its bytes', async () => {
    const path = join(dir, '.env')
    const text = "# head\nA='a long value that is replaced by a short one'\nB=1"
    writeFileSync(path, text, { mode: 0o604 })
    linkSync(path, join(dir, 'second'))
    const { ino, mode } = statSync(path)
    const session = await envFile.open({ path, write: 'in-place' }, testContext())
    await session.probe()
    const stood = await session.standing?.(['A', 'C'])
    const entries = entriesOf({ A: 'x', C: 'y' })
    for (const _twice of [1, 2])
      await session.put({ id: 'd', path: 'p', version: 1, entries, fields: entries })
    expect(readFileSync(join(dir, 'second'), 'utf8')).toBe("# head\nA='x'\nB=1\nC=y")
    await session.restore(stood?.values, undefined, stood?.rest)
    expect([
      readFileSync(join(dir, 'second'), 'utf8'),
      statSync(path).ino,
      statSync(path).mode,
    ]).toEqual([text, ino, mode])
    expect(readdirSync(dir).toSorted()).toEqual(['.env', 'second'])
  })

  test('in place a file that is not there is made as ever, and taken away by an undo', async () => {
    const path = join(dir, '.env')
    const session = await envFile.open({ path, write: 'in-place' }, testContext())
    await session.probe()
    const stood = await session.standing?.(['A'])
    const entries = entriesOf({ A: 'x' })
    await session.put({ id: 'd', path: 'p', version: 1, entries, fields: entries })
    expect(statSync(path).mode & 0o777).toBe(0o600)
    await session.restore(stood?.values, undefined, stood?.rest)
    expect(readdirSync(dir)).toEqual([])
  })

  test('it is replaced, never written in place, and nothing else is left', async () => {
    const path = join(dir, '.env')
    writeFileSync(path, 'A=1\n')
    linkSync(path, join(dir, 'before'))
    await put(path, { A: '2' })
    expect(readFileSync(join(dir, 'before'), 'utf8')).toBe('A=1\n')
    expect(readdirSync(dir).toSorted()).toEqual(['.env', 'before'])
  })

  test('writing what is there already touches nothing', async () => {
    const path = join(dir, '.env')
    await put(path, { A: 'x' })
    const { ino, mtimeMs } = statSync(path)
    await put(path, { A: 'x' })
    expect(statSync(path)).toMatchObject({ ino, mtimeMs })
  })

  test('what a killed process left is removed, and its lock does not hold us up', async () => {
    const path = join(dir, '.env')
    writeFileSync(join(dir, '..env.rotate.tmp'), 'A=half-written-secret')
    // The id of a process that has just ended.
    const gone = execFileSync('/bin/sh', ['-c', 'echo $$'], { encoding: 'utf8' }).trim()
    writeFileSync(join(dir, '..env.rotate.lock'), gone)
    await put(path, { A: 'x' })
    expect(readdirSync(dir)).toEqual(['.env'])
  })

  test('a lock of a living process is respected', async () => {
    const path = join(dir, '.env')
    writeFileSync(join(dir, '..env.rotate.lock'), String(process.ppid))
    const waiting = put(path, { A: 'x' })
    await new Promise((resolve) => setTimeout(resolve, 150))
    expect(existsSync(path)).toBe(false)
    rmSync(join(dir, '..env.rotate.lock'))
    await waiting
    expect(readFileSync(path, 'utf8')).toBe('A=x\n')
  })

  test('a lock that nobody lets go of is broken after five seconds', async () => {
    const path = join(dir, '.env')
    writeFileSync(join(dir, '..env.rotate.lock'), String(process.ppid))
    const began = performance.now()
    await put(path, { A: 'x' })
    expect(performance.now() - began).toBeGreaterThan(4000)
    expect(readdirSync(dir)).toEqual(['.env'])
  })

  test('many writers at once lose nothing', async () => {
    const path = join(dir, '.env')
    writeFileSync(path, '# shared\n')
    await Promise.all(Array.from({ length: 20 }, (_, i) => put(path, { [`K${i}`]: `v${i}` })))
    expect(Object.keys(parse(readFileSync(path)))).toHaveLength(20)
  })

  test('many processes at once lose nothing', async () => {
    const path = join(dir, '.env')
    const module = new URL('../../src/targets/env-file.ts', import.meta.url).href
    const secret = new URL('../../src/core/secret.ts', import.meta.url).href
    const script = `
      const { default: target } = await import(${JSON.stringify(module)})
      const { Secret } = await import(${JSON.stringify(secret)})
      const [path, prefix] = process.argv.slice(1)
      const session = await target.open({ path }, {})
      for (let i = 0; i < 10; i++) await session.put({ id: 'd', path: 'p', version: 1, entries: { [prefix + i]: new Secret('v' + i) }, fields: {} })`
    const { promisify } = await import('node:util')
    const { execFile } = await import('node:child_process')
    const run = promisify(execFile)
    await Promise.all(
      ['A', 'B', 'C', 'D'].map((prefix) =>
        run(process.execPath, ['--input-type=module', '-e', script, path, prefix]),
      ),
    )
    expect(Object.keys(parse(readFileSync(path)))).toHaveLength(40)
    expect(readdirSync(dir)).toEqual(['.env'])
  })

  test('a change by somebody else between reading and renaming is kept', async () => {
    const path = join(dir, '.env')
    writeFileSync(path, 'A=1\n')
    // Somebody adds a line at the moment at which the new file lies ready beside the old
    // one.
    const watcher = watch(dir, (_event, name) => {
      if (name !== '..env.rotate.tmp') return
      watcher.close()
      writeFileSync(path, 'A=1\nOTHER=2\n')
    })
    await put(path, { MINE: 'x' })
    watcher.close()
    expect(parse(readFileSync(path))).toEqual({ A: '1', OTHER: '2', MINE: 'x' })
  })

  test('the path is made absolute when it is set', async () => {
    const settled = (await envFile.settleConfig({ path: 'some.env' }, testContext())) as {
      path: string
    }
    expect(settled.path).toBe(join(process.cwd(), 'some.env'))
  })
})
