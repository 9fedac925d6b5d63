/**
 * The short way of `run-due`: cron calls it every few minutes, and nearly always there is
 * nothing to do. It asks exactly what the long way asks first (app/rotation/waiting.ts),
 * writes nothing, and ends with 0 where the long way would end too. It knows only the
 * plainest forms of the command, and leaves all others to the long way.
 */
import { nothingWaits, whatWaits } from '../app/rotation/waiting.ts'
import { parseDuration } from '../core/duration.ts'
import { selector } from '../core/names.ts'
import { type FastHost, openFast } from './fast.ts'

interface Asked {
  vault?: string
  keyFile?: string
}

/**
 * A count such as that of `--parallel 4`: a whole number, well inside of what is allowed.
 */
const COUNT = /^[1-9]\d?$/

/**
 * The arguments, if all of them are known and valid and none matters when nothing is to
 * be done.
 */
function parse(argv: readonly string[]): Asked | undefined {
  const asked: Asked = {}
  const seen = new Set<string>()
  for (let i = 1; i < argv.length; i++) {
    const arg = argv[i] ?? ''
    const [what, takes] = arg.startsWith('-') ? [arg, TAKES.has(arg)] : ['SEL', false]
    if (seen.has(what)) return undefined
    seen.add(what)
    const value = takes ? argv[++i] : undefined
    if (takes && (value === undefined || value === '')) return undefined
    switch (what) {
      case 'SEL':
        selector(arg)
        break
      case '--vault':
        asked.vault = value ?? ''
        break
      case '--key-file':
        asked.keyFile = value ?? ''
        break
      case '--limit':
      case '--parallel':
        if (!COUNT.test(value ?? '') || Number(value) > 64) return undefined
        break
      case '--jitter':
      case '--max-runtime':
        parseDuration(value ?? '', what)
        break
      case '--fail-if-locked':
      case '--quiet':
      case '-q':
        break
      default:
        return undefined
    }
  }
  return asked
}

const TAKES = new Set([
  '--vault',
  '--key-file',
  '--limit',
  '--parallel',
  '--jitter',
  '--max-runtime',
])

/**
 * 0 when there is nothing to do; `undefined` when the long way must be taken. Nothing has
 * been written then.
 */
export async function fastRunDue(host: FastHost): Promise<number | undefined> {
  try {
    const asked = host.argv[0] === 'run-due' ? parse(host.argv) : undefined
    const opened = asked === undefined ? undefined : await openFast(host, asked)
    if (opened === undefined) return undefined
    try {
      const waiting = await whatWaits({ vault: opened.vault, clock: host.clock }, true)
      return nothingWaits(waiting) && !opened.warned() ? 0 : undefined
    } finally {
      opened.vault.close()
    }
  } catch {
    return undefined
  }
}
