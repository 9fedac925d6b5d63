/** The texts of `help TOPIC`, which are not about one command. */
import { exits } from '../core/errors.ts'

/** The one table of what the exit codes mean; their numbers are those of `exits`. */
const meanings: Readonly<Record<keyof typeof exits, string>> = {
  ok: 'done; also "nothing was due" and "already so"',
  failed: 'nothing better fits (a bug; -v shows where)',
  usage: 'a bad flag, argument or configuration, or a value was needed and asking is off',
  differences: 'only with --exit-code or --check: there is work or drift',
  'no-vault': 'the vault file does not exist',
  locked: 'this secret is being rotated by another process',
  'unlock-failed': 'wrong key or passphrase, or none could be obtained',
  'not-found': 'no such secret, version, value yet, schedule or run',
  denied: 'policy forbids it; run-due: a value that a person makes is overdue',
  conflict: '--if-version did not match, or the vault exists already',
  'not-writable': "the vault can't be written; nothing changed",
  'rolled-back': 'failed, nothing changed or all undone; the old value is current',
  unsafe: 'the state outside is unknown, or undoing failed: a person must look',
  partial: 'several rotations: some succeeded, some failed',
  'cleanup-pending': 'all is well, but an old key could not be ended yet',
  tampered: 'a row, the state root, the audit chain or the freshness of the vault did not verify',
  unhealthy: 'a check or a test found a failure',
  output: 'the output could not be written completely',
  interrupted: '130 for SIGINT, 143 for SIGTERM; a run in flight can be resumed',
}

function exitCodes(): string {
  const rows = (Object.keys(exits) as (keyof typeof exits)[]).map(
    (name) => `  ${String(exits[name]).padStart(3)}  ${name.padEnd(16)} ${meanings[name]}`,
  )
  return (
    'Exit codes. New ones may be added: treat an unknown non-zero code as a ' +
    `failure.\n\n${rows.join('\n')}\n`
  )
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

  rotate get production/shop/API_TOKEN --json | jq -r .data.value
`

const cron = `Cron. "rotate run-due" may run as often as you like: it does what is due, finishes what was interrupted, and says nothing when
there was nothing to do. A second one at the same time ends at once with exit 0.

  rotate init --key-file /etc/rotate/vault.key --vault /var/lib/rotate/vault.db    # a key file needs no question
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

  rotate provider test ./program       # tries all of that against the program
  rotate provider show exec            # the keys of its configuration

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

const scripts = `Scripts. What a script may rely on.

  stdout is data, stderr is talk. rotate help json says what --json prints, rotate help exit-codes what a code means.
  Nothing ever asks without a terminal (stdin and stderr), with --no-input or in CI. Every question has a flag.
  At a terminal "-" asks and shows nothing of what is typed or pasted; Enter ends a value, Ctrl-D a text such as JSON.
  "get NAME --silent" prints the value and one newline, or one line on stderr and a non-zero code. A value is never cut
  short silently: what could not be written completely ends with 74.

  rotate get production/shop/API_TOKEN --silent | ./smoke-test.sh
`

const words = `Words.

  secret      a path such as production/aws/DEPLOY_KEY, with one value or several named fields
  version     one value of it; numbers are never reused
  pending     sealed but not in use
  current     what "get" returns
  previous    replaced, and alive until its grace is over
  provider    who issues the value, verifies and revokes it
  target      who must hold the new value: an .env file, a program
  check       what proves that the new value works; one that does not present the value is only a sign of life, and says so
  grace       old and new both work, so that slow consumers can follow; then the old one ends
  quarantine  the old one is switched off but not deleted, where the provider can do that
  settle      finding out by reading what a call did whose answer was lost
  stray       a key that one of our runs made and whose value was lost; it is named, switched off, then deleted
  unlocker    what opens the vault: key file, passphrase, recovery key
`

const rotation = `Rotation. What happens, and what happens when it goes wrong.

  preflight, create, sealed as pending, verified at the provider, delivered, redeployed, checked, promoted in one commit,
  targets that pull refreshed, checked again, grace (checked at every run-due), old key suspended, quarantine, deleted,
  proven to be refused.

Until the old key dies, a red check or a failing target undoes everything: targets get the old value back, the new key is
ended, exit 20. Providers that replace the value in place have no such way back; there the run goes forward, and the plan
says so. What can't be known (a lost answer that can't be settled by reading) is a state of its own: exit 21, nothing more
is revoked, and "rotate resume RUN --keep old|new" decides.

A call that was given up may still be carried out by the far side. Databases are told to stop first: the wait is bounded
there, the session is ended and seen gone. Elsewhere nothing that is not found is believed to be absent for a minute
("settlesAfter" of custom and exec): the command ends with 21, status pending and a date, run-due goes on after it, and for
a day it looks for what came late. A write to a target that was given up is waited for in the same way ("settlesAfter" of
webhook and exec; files on this machine need no wait): before it is over neither "done" nor "undone" is said and no key is
ended that it could bring back; then the target is read again, or written once more where it can't be read or shows
something else.

An undo puts back what stood there before, value and attributes. Where that can be neither read nor known from our own last
write, the rotation is refused before anything is done, unless the target says "irreversible": true. A decision (resume,
abort) tries every open step again; what can't be mended is given up by name: --give-up TARGET. What an override drops is on
the screen before and after.

A consumer that verifies what others sign or send (a JWT secret, a web hook's secret) must accept both values while the old
one is in grace. Give its target "previous":true: beside JWT_SECRET it then also holds JWT_SECRET_PREVIOUS (or the name that
you give instead of true): the value before while that is in grace, otherwise the current value once more, so that the name
is always there. When grace ends, the old value is first withdrawn there and the consumers are redeployed, and only then it
ends; a target that can't be written holds the end back (23). An emergency never publishes the old value.

  rotate schedule set production/api/JWT_SECRET --provider jwt --interval 90 --grace 24h --target '{"type":"env-file","path":"/srv/api/.env","previous":true}'
`

const recovery = `Recovery. No file can prove its own age, so each user's state directory remembers the newest state it saw. An older copy in
place of the vault, or a fork of it, is exit 24 until "rotate vault accept-rollback --reason …". A vault that was restored,
copied, moved or is used by another user or machine works, but nothing is revoked on its word (exit 23) until
"rotate reconcile --apply" has compared every scheduled secret with its provider and found no contradiction.

  rotate vault info                                        # how it stands
  rotate vault backup /mnt/usb/vault.db                    # online, verified by a second process, opened by the same keys
  rotate vault backup --configure /mnt/backups --keep 14   # one a day by run-due, and one before any old key is ended
  rotate vault check --deep                                # everything verified; run-due does it once a day
  rotate vault restore /mnt/usb/vault.db                   # never overwrites; then: rotate reconcile --apply
  rotate vault salvage saved.db                            # whatever still authenticates, when there is no backup
  rotate get NAME --unverified --reason "outage"           # the last resort for one value

A backup that nobody has restored is a hope. The drill takes a minute and changes nothing. It needs the backup, the recovery
key and an empty home, as after the loss of the machine. Make the recovery key today and keep it elsewhere:

  rotate unlocker add --kind recovery --recovery-out recovery.key

Drill, with the files in $BACKUP and $RECOVERY, and the path of a secret in $NAME:

  unset ROTATE_KEY_FILE; export HOME="$(mktemp -d)" ROTATE_PASSPHRASE_FILE="$RECOVERY"
  rotate vault restore "$BACKUP"                           # a copy here; the backup stays as it is
  rotate vault check --deep
  rotate get "$NAME" --silent | ./smoke-test.sh
  rotate reconcile                                         # reads only: do the backup and the world agree?

After a real loss it goes on with a new key for the new machine, and the lost one opens nothing any more:

  rotate unlocker add --kind key-file --key-file "$HOME/rotate.key"
  rotate unlocker remove "$LOST" --yes                     # its id is in: rotate unlocker list; everything is sealed anew
  rotate reconcile --apply                                 # from now on old keys are ended again
`

export const topics: ReadonlyMap<string, () => string> = new Map([
  ['environment', () => environment],
  ['exit-codes', exitCodes],
  ['json', () => json],
  ['cron', () => cron],
  ['programs', () => programs],
  ['scripts', () => scripts],
  ['rotation', () => rotation],
  ['recovery', () => recovery],
  ['words', () => words],
])
