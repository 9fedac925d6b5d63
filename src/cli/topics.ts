/** `help TOPIC`: what is not about one command. */
import { exits } from '../core/errors.ts'

const meanings: Readonly<Record<keyof typeof exits, string>> = {
  ok: 'done; also "nothing was due" and "already so"',
  failed: 'nothing better fits (a bug; -v shows where)',
  usage: 'a bad flag or argument, or a value was needed and asking is off',
  differences: 'only with --exit-code or --check: there is work or drift',
  'no-vault': 'the vault file does not exist',
  locked: 'this secret is being rotated by another process',
  'unlock-failed': 'wrong key or passphrase, or none could be had',
  'not-found': 'no such secret, version, value yet, schedule or run',
  denied: 'a rule, a window or a missing approval forbids it, or a value that a person makes is overdue',
  conflict: '--if-version did not match, or the vault exists already',
  'not-writable': "the vault can't be written; nothing changed",
  'rolled-back': 'failed and undone; the old value is current',
  unsafe: 'the state outside is not known: page a person',
  partial: 'several rotations: some succeeded, some failed',
  'cleanup-pending': 'all is well, but an old key could not be revoked yet',
  tampered: 'a row, the state root, the audit chain or the freshness of the vault did not verify',
  unhealthy: 'a check or a test found a failure',
  output: 'the output could not be written completely',
  interrupted: '130 for SIGINT, 143 for SIGTERM; a run in flight can be resumed',
}

function exitCodes(): string {
  const rows = (Object.keys(exits) as (keyof typeof exits)[]).map(
    (name) => `  ${String(exits[name]).padStart(3)}  ${name.padEnd(16)} ${meanings[name]}`,
  )
  return `Exit codes. New ones may be added: treat an unknown non-zero code as a failure.\n\n${rows.join('\n')}\n`
}

const environment = `Environment. Flags win over all of these.

  ROTATE_VAULT                the vault file; default $XDG_DATA_HOME/rotate/vault.db
  ROTATE_KEY_FILE             key file that opens the vault
  ROTATE_PASSPHRASE_FILE      file with the passphrase (0600)
  ROTATE_PASSPHRASE_COMMAND   command that prints the passphrase, run by /bin/sh
  ROTATE_PASSPHRASE           the passphrase itself; every process of the user can read it
  CREDENTIALS_DIRECTORY       of systemd: rotate.key or rotate.passphrase in it
  ROTATE_PROJECT, ROTATE_ENV  what -p and -e stand for when only -k is given
  ROTATE_ACTOR                who acts, for the audit trail
  ROTATE_NO_INPUT, CI         never ask
  ROTATE_TZ                   time zone of tables, such as Europe/Berlin
  NO_COLOR, FORCE_COLOR       colour, as everywhere
  XDG_STATE_HOME              locks and high-water marks; default ~/.local/state

To open the vault the first of these decides: a flag, ROTATE_KEY_FILE, ROTATE_PASSPHRASE_FILE, ROTATE_PASSPHRASE_COMMAND,
ROTATE_PASSPHRASE, CREDENTIALS_DIRECTORY, a question on the terminal.
`

const json = `JSON. With --json one document {"data": …} is printed on stdout; keys are camelCase, times ISO-8601 in UTC.

  A failure prints {"error":{"code","exit","message","hint","details","runId"}} on stderr. Commands that report
  (rotate, resume, abort, rollback, revoke, run-due, check, plan, audit verify …) print their data as well, if there is any;
  all others print nothing on stdout then.

  A secret value stands under the key "value" only, and only where printing it is the command's job.
  Fields are added over time, never renamed. --events prints one document per line, the last with "type":"summary".

  rotate get PATH --json | jq -r .data.value
`

const cron = `Cron. "rotate run-due" may run as often as you like: it does what is due, finishes what was interrupted, and says nothing when
there was nothing to do. A second one at the same time ends at once with exit 0.

  rotate init --key-file /etc/rotate/vault.key        a key file needs no question
  */15 * * * *  ROTATE_KEY_FILE=/etc/rotate/vault.key ROTATE_VAULT=/var/lib/rotate/vault.db rotate run-due

  With systemd: LoadCredential=rotate.key:/etc/rotate/vault.key in the unit, and nothing else is needed.
  Cron's stdin is a pipe: rotate reads it only with - or --input -.
`

const programs = `Programs. The provider "exec" makes anything that can be started a provider: "create" makes a new value, and, where configured, "settle" says what a
create made whose answer was lost, "verify" tries a value, "revoke" ends it. There is no shell; values are on stdin and stdout only.

  Environment  ROTATE_EVENT    create, settle, verify or revoke
               ROTATE_SECRET   the path of the secret
               ROTATE_INTENT   create and settle: the mark of this attempt; store it with what is made, or derive that from it
               ROTATE_KEY_ID   verify and revoke: the "keyId" that create gave, empty without one

  "output":"json"   stdin   {"event","path","intent"?,"keyId"?,"current"?|"value"?}; the value is text, or an object with "fields" configured
                    stdout  create and settle: {"value":…} or {"fields":{…}}, with "keyId"?, "expiresAt"?, "metadata"? beside it;
                            settle also: {"outcome":"none"} or {"outcome":"ambiguous"}
  "output":"value"  stdin and stdout are the bare value; one newline at its end is not part of it. No settle

  Exit         0   done: made, accepted, ended; ending what is gone is 0 too
               1   verify: the value is refused. Uncaught errors of Python and Node end with 1 as well: catch them and end with 2
               75  nothing was done, try again
               any other: failed; for verify "can't tell". A create that failed and printed nothing has made nothing, unless there is a settle to ask

  rotate provider test ./program       tries all of that against the program
  rotate provider show exec            the keys of its configuration

The targets "exec" and "webhook" hand a value to whoever delivers it. They are told what to do and never asked what stands there.

  exec         ROTATE_EVENT    push: here is the new value; rollback: the rotation is undone, here is the old one
               ROTATE_SECRET   the path; ROTATE_VERSION its version; ROTATE_DELIVERY_ID the same for every repetition of one message
               stdin           the bare value, or several as one JSON object by name
               exit            0 done, 75 try again, any other failed
  webhook      POST {"event":"push"|"restore","path","version","deliveryId","values":{NAME: text}}; any 2xx is done

  An undo carries the old version. Where there is none, or where it lacks a value, it carries nothing: empty stdin and empty
  ROTATE_VERSION and ROTATE_DELIVERY_ID, or "version":null, "values":{} and a fresh id. What to put back then only you can know.
  Repeating is harmless by contract: a message may come again after a lost answer or a crash, also when it was done already.
`

export const topics: ReadonlyMap<string, () => string> = new Map([
  ['environment', () => environment],
  ['exit-codes', exitCodes],
  ['json', () => json],
  ['cron', () => cron],
  ['programs', () => programs],
])
