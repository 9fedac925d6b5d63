/**
 * A `.env` file on this machine (reference/providers.md 17).
 *
 * The file is replaced as a whole: a new file in the same directory, written and flushed, takes its name, so that a reader sees the old text or the
 * new, and a crash leaves one of them. All names go in one write. Quoting and what can't be written: `net/dotenv.ts`.
 *
 * Two secrets may live in one file and be rotated at the same time by two processes: a lock file (it holds a process id, never a value) keeps them
 * apart, and a text that was changed by anybody between reading and renaming is read and edited again. After the renaming the file is read once
 * more, and so is the one that was replaced: what somebody wrote into it at the last moment is brought into the new one.
 *
 * An undo gives back the lines as they were written, in the file as it is then; a file that we made is removed where nothing else stands in it.
 */
import { createHash } from 'node:crypto'
import { constants, realpathSync, type Stats } from 'node:fs'
import { access, type FileHandle, lstat, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { z } from 'zod'
import { AdapterError, type AdapterCode } from '../core/errors.ts'
import type { Prior } from '../core/model.ts'
import { visible } from '../core/names.ts'
import type { AdapterContext } from '../core/provider.ts'
import { Secret } from '../core/secret.ts'
import { defineTarget, type Standing } from '../core/target.ts'
import { type Assignment, assignmentsOf, edit, loadReaders, nameFault, othersIn, putBack, type Readers, valuesOf } from '../net/dotenv.ts'
import { afterWrite } from '../net/tool.ts'

const MAX_BYTES = 16 * 1024 * 1024
/** A write takes milliseconds: who holds the lock this long was stopped, or its process id belongs to somebody else by now. */
const LOCK_WAIT_MS = 5_000
const LOCK_STEP_MS = 25
const TRIES = 10

const Config = z.strictObject({
  path: z.string().min(1).meta({ description: 'The file; created with mode 0600 if its directory exists' }),
})

/** What an undo needs besides the values: how the lines were written, and whether there was a file. */
const Rest = z.object({
  file: z.boolean(),
  lines: z.record(z.string(), z.array(z.object({ line: z.string(), raw: z.string(), tail: z.string() }))),
})
type Rest = z.output<typeof Rest>

export default defineTarget({
  id: 'env-file',
  title: '.env file on this machine',
  config: Config,
  readable: true,
  describe: (config) => config.path,
  // Whoever writes here is this program, and it has ended when it answers.
  settlesAfterMs: 0,
  place: ({ path }) => placeOf(resolve(path)),
  settleConfig: async (config) => {
    const path = resolve(config.path)
    await usableDirectory(path)
    await regularFile(path)
    return { path }
  },
  open: (config, context) => {
    const path = resolve(config.path)
    return Promise.resolve({
      probe: async () => {
        await usableDirectory(path)
        const { stats } = await readText(path)
        if (stats !== undefined) await replaceable(path, stats, context)
      },
      current: async (names) => {
        const [{ text }, readers] = await Promise.all([readText(path), loadReaders()])
        for (const name of names) assignedOnce(path, text, name, readers)
        const found = valuesOf(text, names, readers)
        return Object.fromEntries(Object.entries(found).map(([name, value]) => [name, value === null ? null : new Secret(value)]))
      },
      standing: (names) => standing(path, names),
      neighbours: async (names) => {
        const others = othersIn((await readText(path)).text, names, await loadReaders())
        return Object.fromEntries(Object.entries(others).map(([name, value]) => [name, new Secret(value)]))
      },
      put: async ({ entries }) => {
        for (const name of Object.keys(entries)) {
          const fault = nameFault(name)
          if (fault !== undefined) throw refusal('misconfigured', `"${visible(name)}": ${fault}`)
        }
        await change(path, context, (text, readers) => edit(text, entries, readers))
      },
      restore: async (prior, old, rest) => {
        const back: Prior | undefined = prior ?? old?.entries
        if (back === undefined) return
        const how = rest === undefined ? undefined : Rest.parse(JSON.parse(rest.reveal()))
        await change(path, context, (text, readers) => restored(text, back, how, readers))
      },
      close: () => Promise.resolve(),
    })
  },
})

/** The file under the one name that it has without symbolic links on the way; a directory that is not there has none. */
function placeOf(path: string): string {
  try {
    return join(realpathSync(dirname(path)), basename(path))
  } catch {
    return path
  }
}

/** The lines of a name. Those with different values are refused: which of them is in use depends on who reads the file. */
function assignedOnce(path: string, text: string, name: string, readers: Readers): readonly Assignment[] {
  const found = assignmentsOf(text, name, readers)
  if (new Set(found.map(({ value }) => value)).size > 1)
    throw refusal(
      'misconfigured',
      `${visible(path, 200)} gives ${visible(name)} several different values (lines ${found.map(({ number }) => number).join(', ')})`,
      'keep the one that is meant',
    )
  return found
}

async function standing(path: string, names: readonly string[]): Promise<Standing> {
  const [{ text, stats }, readers] = await Promise.all([readText(path), loadReaders()])
  const lines: Record<string, readonly { line: string; raw: string; tail: string }[]> = {}
  for (const name of names) {
    lines[name] = assignedOnce(path, text, name, readers).map(({ line, raw, tail }) => ({ line, raw, tail }))
  }
  const values = Object.entries(valuesOf(text, names, readers)).map(([name, value]) => [name, value === null ? null : new Secret(value)])
  const rest: Rest = { file: stats !== undefined, lines: Object.fromEntries(Object.entries(lines).map(([name, all]) => [name, [...all]])) }
  return { values: Object.fromEntries(values) as Prior, rest: new Secret(JSON.stringify(rest)) }
}

/** `null`: there was no file, and nothing else has come into it since. */
function restored(text: string, back: Prior, how: Rest | undefined, readers: Readers): string | null {
  let edited = text
  for (const [name, value] of Object.entries(back)) {
    const same = value === null ? undefined : putBack(edited, name, how?.lines[name] ?? [], value, readers)
    edited = same ?? edit(edited, { [name]: value }, readers, false)
  }
  return how?.file === false && edited === '' ? null : edited
}

function refusal(code: AdapterCode, message: string, hint?: string): AdapterError {
  return new AdapterError(code, message, { retryable: false, ...(hint === undefined ? {} : { hints: [hint] }) })
}

async function usableDirectory(path: string): Promise<void> {
  const directory = dirname(path)
  const shown = visible(directory, 200)
  try {
    if (!(await stat(directory)).isDirectory()) throw refusal('misconfigured', `${shown} is not a directory`)
    await access(directory, constants.W_OK | constants.X_OK)
  } catch (thrown) {
    throw fileError(thrown, `the directory ${shown}`, `mkdir -p ${shown}`)
  }
}

/** What stands there now; `undefined` if nothing does. Symbolic links are refused: renaming would replace the link, following it would write elsewhere. */
async function regularFile(path: string): Promise<Stats | undefined> {
  const shown = visible(path, 200)
  let found: Stats
  try {
    found = await lstat(path)
  } catch (thrown) {
    if (codeOf(thrown) === 'ENOENT') return undefined
    throw fileError(thrown, shown)
  }
  if (found.isSymbolicLink()) throw refusal('misconfigured', `${shown} is a symbolic link`, 'configure the file to which it points')
  if (!found.isFile()) throw refusal('misconfigured', `${shown} is not a regular file`)
  if (found.size > MAX_BYTES) throw refusal('misconfigured', `${shown} is larger than 16 MiB and can't be a .env file`)
  return found
}

/** Can a new file take the place of this one, with its owner and its group? Throws before anything is written where it can't. */
async function replaceable(path: string, { uid, gid, nlink }: Stats, context: AdapterContext): Promise<void> {
  const shown = visible(path, 200)
  // The others would keep the old file, with a value that is ended later.
  if (nlink > 1)
    throw refusal(
      'misconfigured',
      `${shown} has ${nlink} names (hard links), of which only this one would get the new value`,
      `leave one of the ${nlink}, or make the others symbolic links to it`,
    )
  if ((await mountPoints()).has(placeOf(path)))
    throw refusal('misconfigured', `${shown} is mounted as a single file, which can not be replaced`, 'mount its directory')
  if (!(await hasAccessList(path, context))) {
    if (await handsDown(dirname(placeOf(path)), context)) throw inherits(path)
  } else if (!(await said(context, ['cp', '--help'])).includes('--attributes-only')) throw notKept(shown, 'has an access list (ACL)')
  const [user, groups] = [process.geteuid?.(), [process.getegid?.(), ...(process.getgroups?.() ?? [])]]
  if (user === undefined || user === 0) return
  if (uid !== user) throw notKept(shown, `belongs to the user ${uid}`)
  if (!groups.includes(gid)) throw notKept(shown, `belongs to the group ${gid}`)
}

function notKept(shown: string, what: string): AdapterError {
  return refusal(
    'denied',
    `${shown} ${what}, and a new file in its place could not`,
    'run rotate as its owner or as root, or let the file belong to the user of rotate and be read by a group that this user is in',
  )
}

/** Node says nothing of access lists; `ls` puts a plus behind the mode. https://www.gnu.org/software/coreutils/manual/html_node/What-information-is-listed.html */
async function hasAccessList(path: string, context: AdapterContext): Promise<boolean> {
  return /^\S{10}\+/.test(await said(context, ['ls', '-ld', '--', path]))
}

/**
 * Would a new file in this directory get an access list? Only a default list that has a mask names
 * others than the owner, the group and the rest: https://man7.org/linux/man-pages/man5/acl.5.html.
 * On Linux, where `getfacl` is not there to tell it from a list of the directory's own, it is assumed.
 */
async function handsDown(directory: string, context: AdapterContext): Promise<boolean> {
  if (!(await hasAccessList(directory, context))) return false
  const listed = await said(context, ['getfacl', '-c', '-p', '--', directory])
  return listed === '' ? process.platform === 'linux' : /^default:mask:/m.test(listed)
}

function inherits(path: string): AdapterError {
  const directory = visible(dirname(path), 200)
  return refusal(
    'misconfigured',
    `${directory} has a default access list (ACL), which would open the new file to others than ${visible(path, 200)}`,
    `setfacl -k ${directory} (setfacl and getfacl are in the package acl)`,
  )
}

/** What a program of the system wrote; empty where it failed or is not there. */
async function said({ spawn, signal }: AdapterContext, argv: readonly string[]): Promise<string> {
  try {
    const result = await spawn.run({ argv: await spawn.resolve(argv), env: { LC_ALL: 'C' }, timeoutMs: 10_000, signal })
    return result.code === 0 ? result.stdout.reveal() : ''
  } catch {
    return ''
  }
}

/** Gives the new file the access list of the old one, or sees that it has none either. https://www.gnu.org/software/coreutils/manual/html_node/cp-invocation.html */
async function copyAccessList(path: string, temporary: string, context: AdapterContext): Promise<void> {
  if (!(await hasAccessList(path, context))) {
    if (await hasAccessList(temporary, context)) throw inherits(path)
    return
  }
  await said(context, ['cp', '--attributes-only', '--preserve=mode,ownership', '--', path, temporary])
  if (!(await hasAccessList(temporary, context))) throw notKept(visible(path, 200), 'has an access list (ACL)')
}

/** Where something is mounted, as Linux says it (https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html: the fifth field, in octal where it has spaces). */
async function mountPoints(): Promise<ReadonlySet<string>> {
  const text = await readFile('/proc/self/mountinfo', 'utf8').catch(() => '')
  const octal = (field: string): string =>
    field.replace(/\\([0-7]{3})/g, (_all, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)))
  return new Set(text.split('\n').map((line) => octal(line.split(' ')[4] ?? '')))
}

interface Content {
  readonly text: string
  readonly stats: Stats | undefined
  readonly hash: string
}

async function readText(path: string): Promise<Content> {
  const stats = await regularFile(path)
  if (stats === undefined) return { text: '', stats, hash: '' }
  let bytes: Buffer
  try {
    bytes = await readFile(path, { flag: constants.O_RDONLY | constants.O_NOFOLLOW })
  } catch (thrown) {
    throw fileError(thrown, visible(path, 200))
  }
  const content = new Secret(bytes)
  if (!content.isText()) throw refusal('misconfigured', `${visible(path, 200)} is not UTF-8 text`)
  return { text: content.reveal(), stats, hash: hashOf(bytes) }
}

function hashOf(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

/** One change at a time per file in this process; the lock file keeps other processes away. */
const queues = new Map<string, Promise<void>>()

/** What the text shall become; `null`: no file. */
type Edit = (text: string, readers: Readers) => string | null

function change(path: string, context: AdapterContext, how: Edit): Promise<void> {
  const before = queues.get(path) ?? Promise.resolve()
  const mine = before.catch(() => undefined).then(() => locked(path, () => rewrite(path, context, how)))
  queues.set(path, mine)
  return mine.finally(() => {
    if (queues.get(path) === mine) queues.delete(path)
  })
}

/** Ends when the file, read anew, is as it shall be. */
async function rewrite(path: string, context: AdapterContext, how: Edit): Promise<void> {
  const readers = await loadReaders()
  /** What was written at the last moment into a file that we have replaced. */
  let late: string | undefined
  let written = false
  const once = async (): Promise<boolean> => {
    const content = await readText(path)
    const edited = how(late ?? content.text, readers)
    if (edited === content.text && content.stats !== undefined) return true
    if (content.stats === undefined && (edited === null || edited === '')) return true
    const replaced = await replace(path, context, content, edited)
    written ||= replaced !== false
    late = replaced === false ? undefined : replaced.late
    return false
  }
  for (let attempt = 1; attempt <= TRIES; attempt++) if (await (written ? afterWrite(once) : once())) return
  throw new AdapterError('unavailable', `${visible(path, 200)} is being changed by somebody else all the time`, {
    effect: written ? 'unknown' : 'none',
    retryable: true,
  })
}

/**
 * Writes the new text beside the file and gives it the file's name; `null` takes the file away.
 * `false` if the file was changed meanwhile; nothing has happened then. `late`: what somebody wrote
 * into the old file after we had looked for the last time.
 */
async function replace(
  path: string,
  context: AdapterContext,
  content: Content,
  edited: string | null,
): Promise<false | { readonly late: string | undefined }> {
  const temporary = `${beside(path)}.tmp`
  let handle: FileHandle | undefined
  let replaced: FileHandle | undefined
  let late: string | undefined
  try {
    if (edited !== null) {
      handle = await open(temporary, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o600)
      await handle.writeFile(edited)
      if (content.stats !== undefined) {
        const { uid, gid, mode } = content.stats
        const own = await handle.stat()
        if (own.uid !== uid || own.gid !== gid)
          await handle.chown(uid, gid).catch(() => {
            throw notKept(visible(path, 200), own.uid === uid ? `belongs to the group ${gid}` : `belongs to the user ${uid}`)
          })
        await handle.chmod(mode & 0o7777)
        await copyAccessList(path, temporary, context)
      }
      await handle.sync()
      await handle.close()
      handle = undefined
    }
    if (content.stats !== undefined) replaced = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW).catch(() => undefined)
    const now = await readText(path)
    if (now.hash !== content.hash || now.stats?.ino !== content.stats?.ino) return false
    if (replaced !== undefined && (await replaced.stat()).ino !== content.stats?.ino) return false
    await (edited === null ? rm(path) : rename(temporary, path))
    late = await lateText(replaced, content.hash)
  } catch (thrown) {
    const hint = codeOf(thrown) === 'EBUSY' ? 'a single file that is mounted can not be replaced; mount its directory' : undefined
    throw fileError(thrown, visible(path, 200), hint)
  } finally {
    await handle?.close().catch(() => undefined)
    await replaced?.close().catch(() => undefined)
    await rm(temporary, { force: true }).catch(() => undefined)
  }
  await syncDirectory(dirname(path))
  return { late }
}

/** What the replaced file holds, once it rests, where that is not what we have read. Who has just emptied it is about to write. */
async function lateText(replaced: FileHandle | undefined, hash: string): Promise<string | undefined> {
  if (replaced === undefined) return undefined
  let seen = hash
  for (let look = 0; look < TRIES; look++) {
    const { size } = await replaced.stat()
    const { buffer, bytesRead } = await replaced.read(Buffer.alloc(Math.min(size, MAX_BYTES)), 0, null, 0)
    const bytes = buffer.subarray(0, bytesRead)
    const now = hashOf(bytes)
    if (now === seen && bytesRead > 0) return now === hash || !new Secret(bytes).isText() ? undefined : bytes.toString()
    seen = now
    await pause(LOCK_STEP_MS)
  }
  return undefined
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, constants.O_RDONLY)
  try {
    await handle.sync()
  } catch (thrown) {
    // Some file systems can't flush a directory; the file itself is flushed.
    if (codeOf(thrown) !== 'EINVAL' && codeOf(thrown) !== 'ENOTSUP') throw fileError(thrown, visible(directory, 200))
  } finally {
    await handle.close()
  }
}

/** Prefix of our own files beside the target: `.NAME.rotate`. */
function beside(path: string): string {
  return join(dirname(path), `.${basename(path)}.rotate`)
}

/** Runs `body` while holding the lock file, and first removes a temporary file that a killed process left, because it holds values. */
async function locked(path: string, body: () => Promise<void>): Promise<void> {
  await usableDirectory(path)
  const lock = `${beside(path)}.lock`
  let holder = ''
  for (let waited = 0; !(await tryLock(lock, path)); waited += LOCK_STEP_MS) {
    const found = await lstat(lock).then(
      ({ ino, mtimeMs }) => `${ino} ${mtimeMs}`,
      () => '',
    )
    if (found !== holder) waited = 0
    holder = found
    if (waited >= LOCK_WAIT_MS) await rm(lock, { force: true })
    await pause(LOCK_STEP_MS)
  }
  try {
    await removeLeftovers(path)
    await body()
  } finally {
    await rm(lock, { force: true })
  }
}

async function tryLock(lock: string, path: string): Promise<boolean> {
  try {
    const handle = await open(lock, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, 0o600)
    try {
      await handle.writeFile(String(process.pid))
    } finally {
      await handle.close()
    }
    return true
  } catch (thrown) {
    if (codeOf(thrown) !== 'EEXIST') throw fileError(thrown, `the directory of ${visible(path, 200)}`)
  }
  const holder = await readFile(lock, 'utf8').catch(() => '')
  // An empty lock file belongs to somebody between creating and writing it.
  if (/^\d+$/.test(holder) && !isAlive(Number(holder)) && (await readFile(lock, 'utf8').catch(() => '')) === holder)
    await rm(lock, { force: true })
  return false
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (thrown) {
    return codeOf(thrown) === 'EPERM'
  }
}

async function removeLeftovers(path: string): Promise<void> {
  const prefix = basename(beside(path))
  const names = await readdir(dirname(path)).catch(() => [])
  for (const name of names) if (name === `${prefix}.tmp`) await rm(join(dirname(path), name), { force: true })
}

function codeOf(thrown: unknown): string {
  const code = thrown instanceof Error ? (thrown as NodeJS.ErrnoException).code : undefined
  return typeof code === 'string' ? code : ''
}

/** Nothing that fails before the renaming has changed the file; what comes after it is told by `afterWrite`. */
function fileError(thrown: unknown, what: string, hint?: string): AdapterError {
  if (thrown instanceof AdapterError) return thrown
  switch (codeOf(thrown)) {
    case 'ENOENT':
    case 'ENOTDIR':
      return refusal('missing', `${what} does not exist`, hint)
    case 'EACCES':
    case 'EPERM':
      return refusal('denied', `no permission for ${what}`)
    case 'EROFS':
      return refusal('denied', `${what} is on a read-only file system`)
    case 'ENOSPC':
    case 'EDQUOT':
      return new AdapterError('unavailable', `no space left to write ${what}`)
    case 'ELOOP':
      return refusal('misconfigured', `${what} is a symbolic link`, 'configure the file to which it points')
    default:
      return refusal('failed', `${what} could not be written (${codeOf(thrown) || 'unknown error'})`, hint)
  }
}
