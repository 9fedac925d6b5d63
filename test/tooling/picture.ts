/**
 * Draws the picture of README: one rotation, step by step, and which value works at each
 * of them. The steps and their order are those of a real run of the built program by
 * README's own lines. The picture shows no time, so that it is the same whenever it is
 * drawn. `npm run picture` writes it.
 */
import { spawnSync } from 'node:child_process'
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))
export const PICTURE = join(root, '.github/rotation.svg')
const PATH = 'production/shop/API_TOKEN'

/**
 * The state after a step: the values that the service accepts, and the value that `get`
 * returns.
 */
export interface Shown {
  readonly step: string
  readonly says: string
  readonly by: string
  readonly old: boolean
  readonly fresh: boolean
  readonly current: 'old' | 'new'
}

/** What a step does, in words for the reader. A step without such words is not drawn. */
const WORDS: Readonly<Record<string, string>> = {
  preflight: 'could everything work? only reads',
  create: 'the provider issues a new value; it is sealed in the vault',
  verify: 'the provider accepts the new value',
  deliver: 'the target gets the new value',
  deploy: 'consumers take it up; those of a file do so by themselves',
  check: 'the new value works where it is used',
  promote: 'the new value is current; the old one stays alive for its grace',
  recheck: 'checked once more',
  revoke: 'grace is over: the old value is ended, and seen to be refused',
}

interface RunData {
  readonly steps: readonly { readonly step: string; readonly status: string }[]
}

/** Runs README's lines in an empty home directory and returns what happened, in order. */
export function play(): readonly Shown[] {
  const home = mkdtempSync(join(tmpdir(), 'rotate-picture-'))
  try {
    mkdirSync(join(home, 'bin'))
    symlinkSync(join(root, 'bin/rotate'), join(home, 'bin/rotate'))
    const block =
      /^## Ten minutes\n[^]*?```sh\n([^]*?)^```/m.exec(
        readFileSync(join(root, 'README.md'), 'utf8'),
      )?.[1] ?? ''
    const prepared = block
      .slice(0, block.indexOf('rotate plan '))
      .replace('--grace 24h', '--grace 1s')
    const shell = (script: string): string => {
      const env = {
        HOME: home,
        PATH: `${home}/bin:/usr/bin:/bin`,
        ROTATE_KEY_FILE: `${home}/.config/rotate/key`,
      }
      const run = spawnSync('/bin/sh', ['-ec', script], { cwd: home, env, encoding: 'utf8' })
      if (run.status !== 0) throw new Error(`${script}\nended with ${run.status}: ${run.stderr}`)
      return run.stdout
    }
    const tokens = (): readonly string[] => readdirSync(join(home, 'rotate-try/tokens'))
    shell(prepared)
    const [old = ''] = tokens()
    const { data } = JSON.parse(shell(`rotate now ${PATH} --json`)) as { data: RunData }
    const fresh = tokens().find((token) => token !== old) ?? ''
    if (!tokens().includes(old) || fresh === '')
      throw new Error('the two values are not alive side by side')
    const now = takeUp(data.steps)
    shell('sleep 2')
    const { revoked } = (
      JSON.parse(shell('rotate run-due --json')) as {
        data: { revoked: readonly { state: string }[] }
      }
    ).data
    if (revoked[0]?.state !== 'revoked' || tokens().join() !== fresh)
      throw new Error('the old value is not the one that was ended')
    const file = readFileSync(join(home, 'rotate-try/app.env'), 'utf8')
    if (!file.includes(fresh)) throw new Error('the target does not hold the new value')
    return [
      ...now,
      {
        step: 'revoke',
        says: WORDS['revoke'] ?? '',
        by: 'rotate run-due',
        old: false,
        fresh: true,
        current: 'new',
      },
    ]
  } finally {
    rmSync(home, { recursive: true, force: true })
  }
}

/** The steps of the run that did something, and the state once each is done. */
function takeUp(steps: RunData['steps']): readonly Shown[] {
  let fresh = false
  let current: Shown['current'] = 'old'
  return steps.flatMap(({ step, status }) => {
    const kind = step.split(':')[0] ?? ''
    const says = WORDS[kind]
    if (says === undefined)
      throw new Error(`the step ${step} has no words in test/tooling/picture.ts`)
    fresh ||= kind === 'create'
    if (kind === 'promote') current = 'new'
    return status === 'done' ? [{ step, says, by: 'rotate now', old: true, fresh, current }] : []
  })
}

const ROW = 34
const TOP = 74
const [OLD_X, NEW_X, WIDTH] = [622, 722, 800]

/**
 * Draws the picture. Its colours follow the reader's scheme, and words tell every state
 * as well.
 */
export function draw(shown: readonly Shown[]): string {
  const at = (row: number): number => TOP + row * ROW
  const rows = shown.map(({ step, says, by }, i) => {
    const begins = by !== shown[i - 1]?.by
    return [
      ...(begins && i > 0
        ? [`<line class="rule" x1="20" x2="${WIDTH - 20}" y1="${at(i) - 4}" y2="${at(i) - 4}"/>`]
        : []),
      ...(begins ? [`<text class="code" x="20" y="${at(i) + 20}">${by}</text>`] : []),
      `<text class="step" x="150" y="${at(i) + 14}">${step}</text>`,
      `<text class="says" x="150" y="${at(i) + 27}">${says}</text>`,
    ]
  })
  const bars = (['old', 'fresh'] as const).flatMap((which) => {
    const x = which === 'old' ? OLD_X : NEW_X
    const name = which === 'old' ? 'old' : 'new'
    return shown.flatMap((row, i) => {
      if (!row[which]) return []
      const state = row.current === name ? 'current' : name === 'old' ? 'grace' : 'pending'
      const before = shown[i - 1]
      const changed =
        before === undefined ||
        !before[which] ||
        (before.current === name) !== (row.current === name)
      return [
        `<rect class="${state}" x="${x - 34}" y="${at(i)}" width="68" height="${ROW}"/>`,
        ...(changed ? [`<text class="in" x="${x}" y="${at(i) + 21}">${state}</text>`] : []),
      ]
    })
  })
  const ended = shown.findIndex(({ old }) => !old)
  const height = at(shown.length) + 16
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" role="img" aria-labelledby="t d">
<title id="t">One rotation, step by step</title>
<desc id="d">${shown.map(({ step, says }) => `${step}: ${says}`).join('. ')}.</desc>
<style>
  text { font: 12px system-ui, sans-serif; fill: #57606a } .step { font-weight: 600; font-size: 13px; fill: #1f2328 }
  .code { font: 12px ui-monospace, monospace; fill: #1f2328 } .head { font-weight: 600; text-anchor: middle; fill: #1f2328 }
  .in { text-anchor: middle; fill: #fff } .gone { text-anchor: middle } .rule { stroke: #d0d7de }
  .current { fill: #1a7f37 } .grace { fill: #9a6700 } .pending { fill: #6e7781 }
  @media (prefers-color-scheme: dark) {
    text { fill: #9198a1 } .step, .code, .head { fill: #f0f6fc } .in { fill: #fff } .rule { stroke: #3d444d }
  }
</style>
<text class="head" x="${OLD_X}" y="40">old value</text>
<text class="head" x="${NEW_X}" y="40">new value</text>
<text class="gone" x="${(OLD_X + NEW_X) / 2}" y="60">a coloured bar: it works</text>
${rows.flat().join('\n')}
${bars.join('\n')}
${ended < 0 ? '' : `<text class="gone" x="${OLD_X}" y="${at(ended) + 21}">refused</text>\n`}</svg>
`
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(PICTURE, draw(play()))
