/**
 * A model of a disk that loses power. From a recorded run it makes every state in which
 * the files may be found afterwards: what was synced is there; of all other writes any
 * one, any prefix, any suffix or all may be missing, the last one may be torn, and each
 * directory has kept some prefix of its unsynced changes. Stricter than most file
 * systems: a file's sync does not make its name durable.
 */
import { createHash } from 'node:crypto'
import { dirname } from 'node:path'
import type { Call } from './strace.ts'

type Data =
  | { readonly kind: 'write'; readonly inode: number; readonly at: number; readonly bytes: Buffer }
  | { readonly kind: 'truncate'; readonly inode: number; readonly size: number }
type Entry = {
  readonly kind: 'entry'
  readonly directory: string
  readonly gone: readonly string[]
  readonly made?: { readonly path: string; readonly inode: number }
}
export type Operation =
  | Data
  | Entry
  | { readonly kind: 'sync'; readonly inode: number }
  | { readonly kind: 'sync-directory'; readonly path: string }
  | { readonly kind: 'said'; readonly line: string }

/** The content of the disk by path; a directory has no content. */
type Image = ReadonlyMap<string, Buffer | undefined>

const DIRECTORY = 0

/** The file operations below `root`, and what was printed on stdout in between. */
export function operationsOf(calls: readonly Call[], root: string): Operation[] {
  const out: Operation[] = []
  const names = new Map<string, number>()
  const files = new Map<
    number,
    { readonly path: string; readonly inode: number; readonly append: boolean; position: number }
  >()
  const sizes = new Map<number, number>()
  let inodes = DIRECTORY
  const inside = (path: string): boolean => path === root || path.startsWith(`${root}/`)
  const entry = (gone: readonly string[], path?: string, inode = 0): void => {
    for (const name of gone) names.delete(name)
    if (path !== undefined) names.set(path, inode)
    const directory = dirname(path ?? gone[0] ?? '')
    out.push({
      kind: 'entry',
      directory,
      gone,
      ...(path === undefined ? {} : { made: { path, inode } }),
    })
  }
  const write = (inode: number, at: number, bytes: Buffer): void => {
    out.push({ kind: 'write', inode, at, bytes })
    sizes.set(inode, Math.max(sizes.get(inode) ?? 0, at + bytes.length))
  }
  const truncate = (inode: number, size: number): void => {
    out.push({ kind: 'truncate', inode, size })
    sizes.set(inode, size)
  }
  for (const { name, args, strings, result } of calls) {
    if (result < 0) continue
    const [first = '', second = ''] = strings.map(String)
    const fd = Number(args[0])
    const file = files.get(fd)
    if (name === 'openat') {
      files.delete(result)
      if (!inside(first)) continue
      const flags = args[2] ?? ''
      let inode = names.get(first)
      if (inode === undefined && flags.includes('O_CREAT')) {
        inode = ++inodes
        entry([], first, inode)
      }
      if (inode !== undefined && flags.includes('O_TRUNC')) truncate(inode, 0)
      files.set(result, {
        path: first,
        inode: inode ?? DIRECTORY,
        append: flags.includes('O_APPEND'),
        position: 0,
      })
    } else if (name === 'mkdir') {
      if (inside(first) && first !== root) entry([], first, DIRECTORY)
    } else if (name === 'link') {
      if (inside(second)) entry([], second, names.get(first) ?? 0)
    } else if (name === 'rename') {
      if (inside(second)) entry([first], second, names.get(first) ?? 0)
    } else if (name === 'unlink' || name === 'rmdir') {
      if (inside(first)) entry([first])
    } else if (name === 'write' && fd === 1) {
      for (const line of first.split('\n').slice(0, -1)) out.push({ kind: 'said', line })
    } else if (file === undefined) continue
    else if (name === 'close') files.delete(fd)
    else if (name === 'pwrite64')
      write(file.inode, Number(args[3]), (strings[0] ?? Buffer.alloc(0)).subarray(0, result))
    else if (name === 'write') {
      const at = file.append ? (sizes.get(file.inode) ?? 0) : file.position
      write(file.inode, at, (strings[0] ?? Buffer.alloc(0)).subarray(0, result))
      file.position = at + result
    } else if (name === 'ftruncate') truncate(file.inode, Number(args[1]))
    else if (name === 'fsync' || name === 'fdatasync') {
      out.push(
        file.inode === DIRECTORY
          ? { kind: 'sync-directory', path: file.path }
          : { kind: 'sync', inode: file.inode },
      )
    } else if (name !== 'fchmod') throw new Error(`the model of the disk does not know ${name}`)
  }
  return out
}

/**
 * The system calls to record: those that change files, those that would change files and
 * are not modelled (so that they are noticed), and output on stdout.
 */
export const WATCHED =
  'trace=openat,open,creat,close,mkdir,rmdir,write,writev,pwrite64,pwritev,ftruncate,truncate,fallocate,copy_file_range,sendfile,fsync,fdatasync,sync_file_range,rename,renameat,renameat2,link,linkat,unlink,unlinkat,fchmod'

export interface State {
  readonly image: Image
  /** The lines that had been printed when the power failed. */
  readonly said: readonly string[]
  /** A description for the message of a failure. */
  readonly what: string
}

/** Yields sets of pending writes, by index, that are lost. */
function* losses(pending: number): Iterable<{
  readonly what: string
  readonly lost: (i: number) => boolean
  readonly torn: number
}> {
  yield { what: 'nothing', lost: () => false, torn: -1 }
  for (let i = 0; i < pending; i++) {
    yield { what: `write ${i}`, lost: (j) => j === i, torn: -1 }
    yield { what: `all from write ${i}`, lost: (j) => j >= i, torn: -1 }
    yield { what: `all up to write ${i}`, lost: (j) => j <= i, torn: -1 }
    yield { what: `all from half of write ${i}`, lost: (j) => j > i, torn: i }
    yield { what: `half of write ${i}`, lost: () => false, torn: i }
  }
}

function* choices(
  limits: readonly (readonly [string, number])[],
): Iterable<ReadonlyMap<string, number>> {
  const [first, ...rest] = limits
  if (first === undefined) {
    yield new Map()
    return
  }
  for (const chosen of choices(rest))
    for (let kept = 0; kept <= first[1]; kept++) yield new Map([...chosen, [first[0], kept]])
}

/** Yields all distinct states at the moment before operation `at`. */
export function* statesAt(
  operations: readonly Operation[],
  at: number,
  seen: Set<string>,
): Iterable<State> {
  const past = operations.slice(0, at)
  const syncedUntil = new Map<string, number>()
  for (const [i, operation] of past.entries()) {
    if (operation.kind === 'sync') syncedUntil.set(`inode ${operation.inode}`, i)
    if (operation.kind === 'sync-directory') syncedUntil.set(operation.path, i)
  }
  // Within one file, and within one directory, pending operations came after all durable
  // ones.
  const isPending = (i: number, of: string): boolean => i > (syncedUntil.get(of) ?? -1)
  const durable = new Map<number, Buffer>()
  const data: Data[] = []
  const entries: { readonly entry: Entry; readonly nth: number }[] = []
  const pendingEntries = new Map<string, number>()
  for (const [i, operation] of past.entries()) {
    if (operation.kind === 'write' || operation.kind === 'truncate') {
      if (isPending(i, `inode ${operation.inode}`)) data.push(operation)
      else durable.set(operation.inode, applied(durable.get(operation.inode), operation, false))
    } else if (operation.kind === 'entry') {
      const nth = isPending(i, operation.directory)
        ? (pendingEntries.get(operation.directory) ?? 0) + 1
        : 0
      if (nth > 0) pendingEntries.set(operation.directory, nth)
      entries.push({ entry: operation, nth })
    }
  }
  const said = past.flatMap((operation) => (operation.kind === 'said' ? [operation.line] : []))
  const losing = [...losses(data.length)].map(({ what, lost, torn }) => {
    const contents = new Map(durable)
    for (const [i, operation] of data.entries())
      if (!lost(i))
        contents.set(operation.inode, applied(contents.get(operation.inode), operation, torn === i))
    return { what, contents }
  })
  for (const kept of choices([...pendingEntries])) {
    const names = namesOf(
      entries
        .filter(({ entry, nth }) => nth <= (kept.get(entry.directory) ?? 0))
        .map(({ entry }) => entry),
    )
    for (const { what, contents } of losing) {
      const image = new Map(
        names.map(
          ([path, inode]) =>
            [path, inode === DIRECTORY ? undefined : (contents.get(inode) ?? EMPTY)] as const,
        ),
      )
      const key = digest(image, said.length)
      if (seen.has(key)) continue
      seen.add(key)
      const where = [...kept].map(
        ([directory, n]) => `${n}/${pendingEntries.get(directory)} entries of ${directory}`,
      )
      yield {
        image,
        said,
        what: `before operation ${at}; lost: ${what} of ${data.length}; ${where.join(', ')}`,
      }
    }
  }
}

const EMPTY = Buffer.alloc(0)

/** The names that these changes leave. A file whose directory is lost is lost too. */
function namesOf(entries: readonly Entry[]): (readonly [string, number])[] {
  const names = new Map<string, number>()
  for (const { gone, made } of entries) {
    for (const name of gone) names.delete(name)
    if (made !== undefined) names.set(made.path, made.inode)
  }
  const sorted = [...names].sort(([a], [b]) => (a < b ? -1 : 1))
  const top = Math.min(...sorted.map(([path]) => path.split('/').length))
  const reachable = (path: string): boolean =>
    path.split('/').length === top ||
    (names.get(dirname(path)) === DIRECTORY && reachable(dirname(path)))
  return sorted.filter(([path]) => reachable(path))
}

function applied(before: Buffer = EMPTY, operation: Data, half: boolean): Buffer {
  if (operation.kind === 'truncate') {
    if (half) return before
    const out = Buffer.alloc(operation.size)
    before.copy(out)
    return out
  }
  // A disk writes whole sectors, so a long write is torn at a sector; a short one may be
  // torn anywhere.
  const length = operation.bytes.length
  const bytes = half
    ? operation.bytes.subarray(0, length > 512 ? (length >> 10) * 512 : length >> 1)
    : operation.bytes
  const out = Buffer.alloc(Math.max(before.length, operation.at + bytes.length))
  before.copy(out)
  bytes.copy(out, operation.at)
  return out
}

const digests = new WeakMap<Buffer, string>()

function digestOf(bytes: Buffer): string {
  let found = digests.get(bytes)
  if (found === undefined) {
    found = createHash('sha1').update(bytes).digest('base64')
    digests.set(bytes, found)
  }
  return found
}

function digest(image: Image, said: number): string {
  let text = String(said)
  for (const [path, bytes] of image)
    text += ` ${path} ${bytes === undefined ? 'directory' : digestOf(bytes)}`
  return createHash('sha1').update(text).digest('base64')
}
