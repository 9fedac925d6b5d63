/**
 * The global options as data: the parser, the alias rewriting and the completion scripts
 * all read this table.
 */
import { parseDuration } from '../core/duration.ts'
import { usage } from '../core/errors.ts'
import { fromEnv } from './env.ts'

export interface GlobalOption {
  readonly flags: string
  readonly name: keyof RawGlobals
  readonly takesValue: boolean
  readonly description: string
}

/** Values as the parser leaves them. */
export interface RawGlobals {
  readonly vault?: string
  readonly keyFile?: string
  readonly passphraseFile?: string
  readonly passphraseCommand?: string
  readonly passphraseFd?: string
  readonly json?: true
  readonly quiet?: true
  readonly verbose?: number
  readonly color?: string
  /**
   * `false` when `--no-input` was given. Not `input`, which is the value of `--input` of
   * the command `rotate`.
   */
  readonly asking?: boolean
  readonly yes?: true
  readonly dryRun?: true
  readonly timeout?: string
  readonly actor?: string
  readonly reason?: string
  readonly utc?: true
}

export const globalOptions: readonly GlobalOption[] = [
  {
    flags: '--vault <file>',
    name: 'vault',
    takesValue: true,
    description: 'the vault file (ROTATE_VAULT)',
  },
  {
    flags: '--key-file <file>',
    name: 'keyFile',
    takesValue: true,
    description: 'key file that opens the vault (ROTATE_KEY_FILE)',
  },
  {
    flags: '--passphrase-file <file>',
    name: 'passphraseFile',
    takesValue: true,
    description: 'file with the passphrase',
  },
  {
    flags: '--passphrase-command <cmd>',
    name: 'passphraseCommand',
    takesValue: true,
    description: 'command that prints the passphrase',
  },
  {
    flags: '--passphrase-fd <n>',
    name: 'passphraseFd',
    takesValue: true,
    description: 'open file descriptor with the passphrase',
  },
  { flags: '--json', name: 'json', takesValue: false, description: 'one JSON document on stdout' },
  {
    flags: '-q, --quiet',
    name: 'quiet',
    takesValue: false,
    description: 'no progress and no notices',
  },
  {
    flags: '-v, --verbose',
    name: 'verbose',
    takesValue: false,
    description: 'more detail; stack traces of bugs',
  },
  {
    flags: '--color <when>',
    name: 'color',
    takesValue: true,
    description: 'auto, always or never',
  },
  {
    flags: '--no-input',
    name: 'asking',
    takesValue: false,
    description: 'never ask (ROTATE_NO_INPUT, CI)',
  },
  {
    flags: '-y, --yes',
    name: 'yes',
    takesValue: false,
    description: 'answer confirmations with yes',
  },
  {
    flags: '--dry-run',
    name: 'dryRun',
    takesValue: false,
    description: 'say what would be done and change nothing',
  },
  {
    flags: '--timeout <duration>',
    name: 'timeout',
    takesValue: true,
    description: 'give up after this long, such as 90s or 5m',
  },
  {
    flags: '--actor <name>',
    name: 'actor',
    takesValue: true,
    description: 'who acts, for the audit trail (ROTATE_ACTOR)',
  },
  {
    flags: '--reason <text>',
    name: 'reason',
    takesValue: true,
    description: 'why, for the audit trail',
  },
  {
    flags: '--utc',
    name: 'utc',
    takesValue: false,
    description: 'dates in UTC instead of local time (ROTATE_TZ)',
  },
]

export interface Globals {
  readonly vault: string | undefined
  readonly keyFile: string | undefined
  readonly passphraseFile: string | undefined
  readonly passphraseCommand: string | undefined
  readonly passphraseFd: number | undefined
  readonly json: boolean
  readonly quiet: boolean
  readonly verbose: number
  readonly color: 'auto' | 'always' | 'never'
  /**
   * Do flags and environment allow questions? Whether there is a terminal to ask on is
   * looked at elsewhere.
   */
  readonly input: boolean
  readonly yes: boolean
  readonly dryRun: boolean
  readonly timeoutMs: number | undefined
  readonly actor: string | undefined
  readonly reason: string | undefined
  readonly utc: boolean
}

type Env = Readonly<Record<string, string | undefined>>

/** Is a switch such as `ROTATE_NO_INPUT` or `CI` on? `0`, `false` and `no` are off. */
function switchedOn(env: Env, name: string): boolean {
  const value = fromEnv(env, name)
  return value !== undefined && !/^(0|false|no)$/i.test(value)
}

/** Checks the raw values and merges the environment in. */
export function settleGlobals(raw: RawGlobals, env: Env): Globals {
  const color = raw.color ?? 'auto'
  if (color !== 'auto' && color !== 'always' && color !== 'never')
    throw usage('--color must be auto, always or never')
  const fd = raw.passphraseFd
  if (fd !== undefined && !/^\d{1,6}$/.test(fd))
    throw usage('--passphrase-fd must be the number of an open file descriptor')
  for (const [flag, text] of [
    ['--actor', raw.actor],
    ['--reason', raw.reason],
  ] as const) {
    if (text !== undefined && (text === '' || text.length > 500 || /[\0-\x1f\x7f]/.test(text))) {
      throw usage(`${flag} must be 1 to 500 characters without control characters`)
    }
  }
  return {
    vault: raw.vault,
    keyFile: raw.keyFile,
    passphraseFile: raw.passphraseFile,
    passphraseCommand: raw.passphraseCommand,
    passphraseFd: fd === undefined ? undefined : Number(fd),
    json: raw.json ?? false,
    quiet: raw.quiet ?? false,
    verbose: raw.verbose ?? 0,
    color,
    input: raw.asking !== false && !switchedOn(env, 'ROTATE_NO_INPUT') && !switchedOn(env, 'CI'),
    yes: raw.yes ?? false,
    dryRun: raw.dryRun ?? false,
    timeoutMs: raw.timeout === undefined ? undefined : parseDuration(raw.timeout, '--timeout'),
    actor: raw.actor ?? fromEnv(env, 'ROTATE_ACTOR'),
    reason: raw.reason,
    utc: raw.utc ?? false,
  }
}
