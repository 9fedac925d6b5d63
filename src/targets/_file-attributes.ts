/**
 * Finds out whether a new file may take the place of an old one, or the old one's text be
 * exchanged in place, without losing attributes. Owner, mode, access list (ACL) and
 * extended attributes are kept; where that is impossible, the file is refused before
 * anything is made.
 *
 * Node reads neither access lists nor attributes. GNU tar does, into the header of an
 * archive
 * (https://www.gnu.org/software/tar/manual/html_node/Extended-File-Attributes.html), and
 * GNU cp copies them. Where these programs are missing, `ls` at least shows by a plus
 * behind the mode that there is an access list.
 */
import { constants, realpathSync, type Stats } from 'node:fs'
import { access, lstat, open, readFile, rm, stat, utimes } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { AdapterError, type AdapterCode } from '../core/errors.ts'
import { visible } from '../core/names.ts'
import type { AdapterContext } from '../core/provider.ts'

/**
 * The file's path without symbolic links on the way. A directory that does not exist is
 * taken as it is named.
 */
export function placeOf(path: string): string {
  try {
    return join(realpathSync(dirname(path)), basename(path))
  } catch {
    return path
  }
}

export function refusal(code: AdapterCode, message: string, hint?: string): AdapterError {
  return new AdapterError(code, message, {
    retryable: false,
    ...(hint === undefined ? {} : { hints: [hint] }),
  })
}

export function codeOf(thrown: unknown): string {
  const code = thrown instanceof Error ? (thrown as NodeJS.ErrnoException).code : undefined
  return typeof code === 'string' ? code : ''
}

/**
 * The prefix `.NAME.rotate` of the files that this program makes beside the target's
 * file.
 */
export function beside(path: string): string {
  return join(dirname(path), `.${basename(path)}.rotate`)
}

const IN_PLACE =
  '"write":"in-place", which keeps the file itself (a crash of the machine meanwhile can ' +
  'leave a part of the text)'

/**
 * Throws unless a new file with the same attributes can take the place of this one. It
 * leaves nothing behind.
 */
export async function replaceable(
  path: string,
  stats: Stats,
  context: AdapterContext,
): Promise<void> {
  const shown = visible(path, 200)
  const { uid, gid, nlink } = stats
  await changeable([path, dirname(path)], context)
  const instead = await access(path, constants.W_OK).then(
    () => `, or ${IN_PLACE}`,
    () => '',
  )
  // The other names would keep the old file, with a value that is revoked later.
  if (nlink > 1)
    throw refusal(
      'misconfigured',
      `${shown} has ${nlink} names (hard links), of which only this one would get the new value`,
      `leave one of the ${nlink}, make the others symbolic links to it${instead}`,
    )
  if ((await mountPoints()).has(placeOf(path)))
    throw refusal(
      'misconfigured',
      `${shown} is mounted as a single file, which can not be replaced`,
      `mount its directory${instead}`,
    )
  const [user, groups] = [
    process.geteuid?.(),
    [process.getegid?.(), ...(process.getgroups?.() ?? [])],
  ]
  if (user !== undefined && user !== 0) {
    if (uid !== user) throw notKept(shown, `belongs to the user ${uid}`, instead)
    if (!groups.includes(gid)) throw notKept(shown, `belongs to the group ${gid}`, instead)
  }
  await rehearse(path, stats, context, instead)
}

/** Throws unless this process may exchange the text of the file in place. */
export async function writable(path: string, context: AdapterContext): Promise<void> {
  await changeable([path], context)
  try {
    await access(path, constants.W_OK)
  } catch (thrown) {
    const code = codeOf(thrown)
    throw refusal(
      'denied',
      code === 'EROFS'
        ? `${visible(path, 200)} is on a read-only file system`
        : `no permission for ${visible(path, 200)}`,
    )
  }
}

/**
 * Refuses a file or directory that was made immutable or append-only (chattr), which
 * binds root too.
 */
async function changeable(paths: readonly string[], context: AdapterContext): Promise<void> {
  for (const path of paths) {
    const shown = visible(path, 200)
    if ((await access(path, constants.W_OK).then(() => '', codeOf)) === 'EPERM')
      throw immutable(shown, 'immutable', 'i')
    const flags = (await textOf(context, ['lsattr', '-d', '--', path])).split(' ')[0] ?? ''
    if (flags.includes('i')) throw immutable(shown, 'immutable', 'i')
    if (flags.includes('a')) throw immutable(shown, 'append-only', 'a')
  }
}

function immutable(shown: string, what: string, flag: string): AdapterError {
  return refusal(
    'denied',
    `${shown} is marked ${what}, so that nobody can change it`,
    `chattr -${flag} ${shown}`,
  )
}

function notKept(shown: string, what: string, instead: string): AdapterError {
  return refusal(
    'denied',
    `${shown} ${what}, and a new file in its place could not`,
    'run rotate as its owner or as root, let the file belong to the user of rotate and be ' +
      `read by a group that this user is in${instead}`,
  )
}

let tries = 0

/**
 * Rehearses the exchange: makes an empty file beside this one with the same attributes,
 * and removes it again.
 */
async function rehearse(
  path: string,
  stats: Stats,
  context: AdapterContext,
  instead: string,
): Promise<void> {
  const own = stats.uid === process.geteuid?.() && stats.gid === process.getegid?.()
  if (
    own &&
    (await attributesOf([path], context))[0] === '' &&
    !(await inheritsAccessList(dirname(placeOf(path)), context))
  )
    return
  const attempt = `${beside(path)}.try-${process.pid}-${++tries}`
  try {
    const handle = await open(
      attempt,
      constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
      0o600,
    )
    await handle.close()
    await copyAttributes(path, stats, attempt, context, instead)
  } finally {
    await rm(attempt, { force: true }).catch(() => undefined)
  }
}

/**
 * Gives the new file all attributes of the old one except its times, and checks that it
 * has them. Throws `denied` if it has not.
 */
export async function copyAttributes(
  path: string,
  stats: Stats,
  fresh: string,
  context: AdapterContext,
  instead = '',
): Promise<void> {
  const shown = visible(path, 200)
  const { uid, gid, mode } = stats
  await ownedBy(fresh, stats, shown, instead)
  let [wanted, found] = await attributesOf([path, fresh], context)
  if (wanted !== found) {
    await textOf(context, ['cp', '--attributes-only', '--preserve=all', '--', path, fresh])
    // The times are those of the new text.
    const seconds = context.clock.now() / 1000
    await utimes(fresh, seconds, seconds)
    ;[wanted, found] = await attributesOf([path, fresh], context)
  }
  const now = await stat(fresh)
  if (now.uid !== uid) throw notKept(shown, `belongs to the user ${uid}`, instead)
  if (now.gid !== gid) throw notKept(shown, `belongs to the group ${gid}`, instead)
  if (((now.mode ^ mode) & 0o7777) !== 0)
    throw notKept(shown, `has the mode ${(mode & 0o7777).toString(8)}`, instead)
  if (found === wanted) return
  if (!hasList(wanted) && hasList(found)) throw inherits(path, instead)
  throw notKept(
    shown,
    hasList(wanted) && !hasList(found) ? 'has an access list (ACL)' : 'has extended attributes',
    instead,
  )
}

async function ownedBy(
  fresh: string,
  { uid, gid, mode }: Stats,
  shown: string,
  instead: string,
): Promise<void> {
  const handle = await open(fresh, constants.O_WRONLY | constants.O_NOFOLLOW)
  try {
    const own = await handle.stat()
    if (own.uid !== uid || own.gid !== gid)
      await handle.chown(uid, gid).catch(() => {
        throw notKept(
          shown,
          own.uid === uid ? `belongs to the group ${gid}` : `belongs to the user ${uid}`,
          instead,
        )
      })
    await handle.chmod(mode & 0o7777)
  } finally {
    await handle.close()
  }
}

const hasList = (attributes = ''): boolean => /acl/.test(attributes)

/**
 * The access list and extended attributes of each of these files, which lie in one
 * directory, as a text that can be compared. It is empty if there are none, or if no
 * program of this system shows them.
 */
async function attributesOf(
  paths: readonly [string, ...string[]],
  context: AdapterContext,
): Promise<readonly string[]> {
  const options = [
    '--format=pax',
    '--xattrs',
    '--xattrs-include=*',
    '--acls',
    '--no-recursion',
    '-cf',
    '-',
  ]
  const names = paths.map((path) => `./${basename(path)}`)
  const archive = await output(
    context,
    ['tar', ...options, '-C', dirname(paths[0]), '--', ...names],
    64 * 1024 * 1024,
  )
  const told = archive === undefined ? [] : attributesIn(Buffer.from(archive))
  if (told.length === paths.length) return told
  return Promise.all(
    paths.map(async (path) =>
      /^\S{10}\+/.test(await textOf(context, ['ls', '-ld', '--', path])) ? 'acl' : '',
    ),
  )
}

const BLOCK = 512

/**
 * The attributes of each file of a tar archive. They stand in an extended header before
 * it, in records that are their length, a space, `name=value` and a line end
 * (https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html).
 */
function attributesIn(archive: Buffer): readonly string[] {
  const found: string[] = []
  let own = ''
  for (let at = 0; at + BLOCK <= archive.length && archive[at] !== 0;) {
    const size = Number.parseInt(archive.toString('latin1', at + 124, at + 136), 8)
    const kind = archive.toString('latin1', at + 156, at + 157)
    if (kind === 'x')
      own = recordsIn(archive.subarray(at + BLOCK, at + BLOCK + size))
        .toSorted()
        .join('\0')
    else {
      found.push(own)
      own = ''
    }
    at += BLOCK + Math.ceil(size / BLOCK) * BLOCK
  }
  return found
}

function recordsIn(header: Buffer): readonly string[] {
  const found: string[] = []
  for (let at = 0; at < header.length;) {
    const length = Number.parseInt(header.toString('latin1', at, at + 12), 10)
    if (!(length > 0)) break
    const record = header.toString('latin1', at, at + length)
    const named = record.slice(record.indexOf(' ') + 1)
    if (/^(SCHILY\.(xattr|acl)|RHT)\./.test(named)) found.push(named)
    at += length
  }
  return found
}

/**
 * Tells whether a new file in this directory would inherit an access list. Only a default
 * list that has a mask names others than the owner, the group and the rest:
 * https://man7.org/linux/man-pages/man5/acl.5.html. On Linux, without `getfacl`, which
 * tells a default list from a list of the directory's own, a default list is assumed.
 */
async function inheritsAccessList(directory: string, context: AdapterContext): Promise<boolean> {
  if (!/^\S{10}\+/.test(await textOf(context, ['ls', '-ld', '--', directory]))) return false
  const listed = await textOf(context, ['getfacl', '-c', '-p', '--', directory])
  return listed === '' ? process.platform === 'linux' : /^default:mask:/m.test(listed)
}

function inherits(path: string, instead: string): AdapterError {
  const directory = visible(dirname(path), 200)
  return refusal(
    'misconfigured',
    `${directory} has a default access list (ACL), which would open the new file to others ` +
      `than ${visible(path, 200)}`,
    `setfacl -k ${directory} (setfacl and getfacl are in the package acl)${instead}`,
  )
}

/**
 * Runs a program of the system and returns its output; empty if it failed or is not
 * there.
 */
async function textOf(context: AdapterContext, argv: readonly string[]): Promise<string> {
  return new TextDecoder().decode(await output(context, argv))
}

async function output(
  { spawn, signal }: AdapterContext,
  argv: readonly string[],
  maxBytes?: number,
): Promise<Uint8Array | undefined> {
  try {
    const limit = maxBytes === undefined ? {} : { maxBytes }
    const result = await spawn.run({
      argv: await spawn.resolve(argv),
      env: { LC_ALL: 'C' },
      timeoutMs: 10_000,
      signal,
      ...limit,
    })
    return result.code === 0 ? result.stdout.bytes() : undefined
  } catch {
    return undefined
  }
}

/**
 * The mount points that Linux lists
 * (https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html: the fifth field, in
 * octal where it has spaces).
 */
async function mountPoints(): Promise<ReadonlySet<string>> {
  const text = await readFile('/proc/self/mountinfo', 'utf8').catch(() => '')
  const octal = (field: string): string =>
    field.replace(/\\([0-7]{3})/g, (_all, digits: string) =>
      String.fromCharCode(Number.parseInt(digits, 8)),
    )
  return new Set(text.split('\n').map((line) => octal(line.split(' ')[4] ?? '')))
}

/** Looks at a path without following a link; `undefined` if nothing is there. */
export async function lookAt(path: string): Promise<Stats | undefined> {
  try {
    return await lstat(path)
  } catch (thrown) {
    if (codeOf(thrown) === 'ENOENT') return undefined
    throw thrown
  }
}
