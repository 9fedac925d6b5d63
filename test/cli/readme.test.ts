/**
 * Runs every shell line of README in a home where nothing is prepared, and looks at its
 * picture, its links and its length.
 */
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { draw, PICTURE, play } from '../tooling/picture.ts'
import { Sandbox } from './program.ts'
import { inShell, uncron } from './shell-lines.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const readme = readFileSync(join(root, 'README.md'), 'utf8')
/** All blocks of README in one language. */
const blocks = (language: string): readonly string[] =>
  [...readme.matchAll(new RegExp(`^\`\`\`${language}\\n([^]*?)^\`\`\``, 'gm'))].map(
    ([, text]) => text ?? '',
  )
const tenMinutes = blocks('sh').find((text) => text.includes('rotate init')) ?? ''

test('the lines of "Ten minutes" do what they say, whatever others may read by default', async () => {
  const box = new Sandbox()
  try {
    const { code, stdout, stderr } = await inShell(box, `umask 002\n${tenMinutes}`)
    expect({ code }, stdout + stderr).toEqual({ code: 0 })
    const token = 'production/shop/API_TOKEN'
    expect(stdout.match(new RegExp(`^${token} version \\d$`, 'gm'))).toEqual(
      [1, 2, 1, 3].map((n) => `${token} version ${n}`),
    )
    expect(stdout.match(/^\S+ version \d .* revoked: refused by the provider$/gm)).toHaveLength(2)
    expect(stdout).toMatch(/^ok: \d+ rows, chain intact$/m)
    const [live = '', ...others] = readdirSync(box.path('rotate-try/tokens'))
    expect(others, 'one token lives').toEqual([])
    expect(readFileSync(box.path('rotate-try/app.env'), 'utf8')).toBe(`API_TOKEN=${live}\n`)
    const exported = /^ {2}(export .*)$/m.exec(stderr)?.[1] ?? ''
    expect(tenMinutes, 'what init tells to type').toContain(exported.replace(box.home, '~'))

    // The crontab line, with the key of this home in place of the one that stands there.
    const [crontab = ''] = blocks('crontab')
    const due = await inShell(
      box,
      uncron(crontab).replace('/etc/rotate/key', '~/.config/rotate/key'),
    )
    expect(due).toEqual({ code: 0, stdout: '', stderr: '' })
  } finally {
    box.dispose()
  }
}, 300_000)

test('the line to use a checkout finds its program', async () => {
  const box = new Sandbox()
  try {
    for (const directory of ['bin', 'dist']) {
      mkdirSync(box.path('checkout'), { recursive: true })
      cpSync(join(root, directory), box.path('checkout', directory), { recursive: true })
    }
    const line = blocks('sh').find((text) => text.startsWith('export PATH=')) ?? ''
    const env = { PATH: '/usr/bin:/bin' }
    const { code, stdout } = await inShell(box, `${line}command -v rotate`, {
      cwd: box.path('checkout'),
      env,
    })
    expect({ code, stdout: stdout.trim() }).toEqual({
      code: 0,
      stdout: box.path('checkout/bin/rotate'),
    })
  } finally {
    box.dispose()
  }
})

describe('what is shown', () => {
  test('no shell line is left out of what is run', () => {
    const run = [tenMinutes, ...blocks('crontab')]
    const packed = readFileSync(join(root, 'test/tooling/pack.ts'), 'utf8')
    const others = blocks('sh').filter(
      (text) => !run.includes(text) && !text.startsWith('export PATH='),
    )
    expect(others, 'run by test:pack, which reads it here').toEqual([
      'npm install --global "./$(npm pack --silent)"\n',
    ])
    expect(packed).toContain('npm install --global')
    // The two at the top start what runs these tests, and what test:pack runs.
    const indented = [...readme.matchAll(/^ {4}(\S.*)$/gm)]
      .map(([, line]) => line)
      .filter((line) => !readme.includes(`\\\n    ${line}`))
    expect(indented).toEqual(['npm ci && npm run build && bin/rotate demo', 'npm test'])
  })

  test('the picture is that of a rotation by these very lines', () => {
    expect(draw(play()), 'npm run picture draws it anew').toBe(readFileSync(PICTURE, 'utf8'))
  }, 120_000)

  test('links lead to files, here and in DIFFERENCES.md', () => {
    for (const file of ['README.md', 'src/cli/DIFFERENCES.md']) {
      const text = readFileSync(join(root, file), 'utf8')
      const links = [...text.matchAll(/\]\(([^)#]+)\)/g)].map(([, path = '']) => path)
      const lost = links.filter(
        (path) => !/^https:/.test(path) && !existsSync(join(root, dirname(file), path)),
      )
      expect(lost, file).toEqual([])
      if (file === 'README.md') expect(links).toContain('.github/rotation.svg')
    }
  })

  test('it stays a front door: at most 1,300 words', () => {
    expect(
      readme.split(/\s+/).filter((word) => /[\p{L}\p{N}]/u.test(word)).length,
    ).toBeLessThanOrEqual(1300)
  })
})
