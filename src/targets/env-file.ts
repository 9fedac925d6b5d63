/**
 * A `.env` file on this machine.
 *
 * The file is replaced as a whole: a new file in the same directory is written and
 * flushed and takes the old one's name, so that a reader sees the old text or the new,
 * and a crash leaves one of them. All names go in one write. `net/dotenv.ts` knows the
 * quoting and what can't be written.
 *
 * Two processes may rotate two secrets in one file at the same time. A lock file (it
 * holds a process id, never a value) keeps them apart, and a text that anybody changed
 * between reading and renaming is read and edited again. After the renaming the new file
 * is read once more, and so is the replaced one: what somebody wrote into it at the last
 * moment is brought into the new one.
 *
 * An undo restores the lines as they were written and leaves the rest of the file as it
 * is then. A file that a delivery made is removed if nothing else stands in it.
 */
import { createHash } from 'node:crypto'
import { constants, type Stats } from 'node:fs'
import {
  access,
  type FileHandle,
  lstat,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
} from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Prior } from '../core/model.ts'
import { visible } from '../core/names.ts'
import type { AdapterContext } from '../core/provider.ts'
import { Secret } from '../core/secret.ts'
import { defineTarget, type Standing } from '../core/target.ts'
import {
  type Assignment,
  assignmentsOf,
  edit,
  type EnvFormat,
  nameFault,
  othersIn,
  putBack,
  valuesOf,
} from '../net/dotenv.ts'
import { ENV_FORMATS, loadFormat } from '../net/env-format.ts'
import { afterWrite } from '../net/tool.ts'
import {
  beside,
  codeOf,
  copyAttributes,
  lookAt,
  placeOf,
  refusal,
  replaceable,
  writable,
} from './_file-attributes.ts'

const MAX_BYTES = 16 * 1024 * 1024
/**
 * A write takes milliseconds. A process that holds the lock this long was stopped, or its
 * process id belongs to another process by now.
 */
const LOCK_WAIT_MS = 5_000
const LOCK_STEP_MS = 25
const TRIES = 10

const Config = z.strictObject({
  path: z
    .string()
    .min(1)
    .meta({ description: 'The file; created with mode 0600 if its directory exists' }),
  format: z
    .enum(ENV_FORMATS)
    .default('dotenv')
    .meta({
      description:
        'Who reads it: dotenv (quoted), docker (--env-file and kubectl: nothing quoted), ' +
        'systemd (EnvironmentFile)',
    }),
  write: z
    .enum(['replace', 'in-place'])
    .default('replace')
    .meta({
      description:
        'replace: a new file with the same owner, mode, access list and attributes takes its ' +
        'name, and a reader sees the old text or the new; in-place: the file itself is written, ' +
        'for a mounted file, one with several names or one of another owner',
    }),
})
type Options = z.output<typeof Config>

/**
 * What an undo needs besides the values: how the lines were written, and whether the file
 * existed.
 */
const Rest = z.object({
  file: z.boolean(),
  lines: z.record(
    z.string(),
    z.array(z.object({ line: z.string(), raw: z.string(), tail: z.string() })),
  ),
})
type Rest = z.output<typeof Rest>

/**
 * For the help text: which readers understand which of the values that are written. They
 * differ in quotes, `$` and line ends: dotenv-expand (Vite) and python-dotenv replace
 * variables after quotes are taken off, kubectl and docker take quotes for a part of the
 * value, and not all read a value of several lines. Of the twelve readers, dotenv, node,
 * sh, bash, kubectl and systemd are run in the tests; the others are described by their
 * documentation.
 */
const READERS = [
  'who reads what, in the format dotenv:',
  '  letters, digits and _ @ % + = : , . / ! - (written without quotes): all twelve of ' +
    'dotenv, node --env-file, sh and bash (source), docker compose, Vite, Ruby dotenv, ' +
    'python-dotenv, godotenv, PHP dotenv, direnv, systemd, and docker run --env-file with ' +
    'kubectl --from-env-file',
  '  with spaces, #, ; and other signs (quoted): all of them but docker run --env-file and ' +
    'kubectl, which take the quotes for a part of the value',
  '  with $: dotenv, node, sh and systemd for certain; Vite replaces $NAME and python-dotenv ' +
    '${NAME} even in single quotes',
  '  with \\: dotenv, node, sh and systemd for certain; python-dotenv makes one of two in ' +
    'single quotes',
  '  of several lines: dotenv, node, sh and systemd for certain; not docker run --env-file ' +
    'and kubectl',
  'in the format docker: docker run --env-file and kubectl read every value of one line as it ' +
    'is; others read those without quotes',
  'in the format systemd: EnvironmentFile of a unit reads every text without control characters',
]

export default defineTarget({
  id: 'env-file',
  title: '.env file on this machine',
  example: { path: 'app.env' },
  config: Config,
  readable: true,
  notes: [
    ...READERS,
    'Refused, because a new file could not keep it: an owner, a group, an access list or ' +
      "extended attributes that the user of rotate can't give it, a single file that is " +
      'mounted, one with several names, an immutable one, a name with several different values.',
    '"write":"in-place" writes the file itself instead; then a crash of the machine can leave ' +
      'a part of the text.',
    'Attributes are seen and copied by GNU tar and cp; where those are not there (busybox), ' +
      'extended attributes are not seen.',
    'What others write into the same file at the same time stays: it is read and edited ' +
      'again. An undo gives our part back as it was spelled.',
  ],
  describe: (config) => config.path,
  // This program itself does the write, so none is under way any more once it has
  // answered.
  settlesAfterMs: 0,
  place: ({ path }) => placeOf(resolve(path)),
  slots: ({ path }, name) => [`${placeOf(resolve(path))} ${name}`],
  nameFault,
  settleConfig: async (config) => {
    const path = resolve(config.path)
    const stats = await regularFile(path)
    if (config.write !== 'in-place' || stats === undefined) await usableDirectory(path)
    return { ...config, path }
  },
  open: async (config, context) => {
    const place: Place = {
      ...config,
      path: resolve(config.path),
      context,
      format: await loadFormat(config.format ?? 'dotenv'),
    }
    const { path, format } = place
    return {
      probe: async () => {
        const { stats } = await readText(path)
        if (stats !== undefined && place.write === 'in-place') return writable(path, context)
        await usableDirectory(path)
        if (stats !== undefined) await replaceable(path, stats, context)
      },
      current: async (names) => {
        const { text } = await readText(path)
        for (const name of names) assignedOnce(path, text, name, format)
        const found = valuesOf(text, names, format)
        return Object.fromEntries(
          Object.entries(found).map(([name, value]) => [
            name,
            value === null ? null : new Secret(value),
          ]),
        )
      },
      standing: (names) => standing(place, names),
      neighbours: async (names) => {
        const others = othersIn((await readText(path)).text, names, format)
        return Object.fromEntries(
          Object.entries(others).map(([name, value]) => [name, new Secret(value)]),
        )
      },
      put: async ({ entries }) => {
        for (const name of Object.keys(entries)) {
          const fault = nameFault(name)
          if (fault !== undefined) throw refusal('misconfigured', `"${visible(name)}": ${fault}`)
        }
        await change(place, (text) => edit(text, entries, format))
      },
      restore: async (prior, old, rest) => {
        const back: Prior | undefined = prior ?? old?.entries
        if (back === undefined) return
        const how = rest === undefined ? undefined : Rest.parse(JSON.parse(rest.reveal()))
        await change(place, (text) => restored(text, back, how, format))
      },
      close: () => Promise.resolve(),
    }
  },
})

/** The file of a target, and how it is read and written. */
interface Place {
  readonly path: string
  readonly write: Options['write']
  readonly format: EnvFormat
  readonly context: AdapterContext
}

/**
 * Finds the lines that assign a name. Lines with different values are refused, because it
 * depends on the reader which of them counts.
 */
function assignedOnce(
  path: string,
  text: string,
  name: string,
  format: EnvFormat,
): readonly Assignment[] {
  const found = assignmentsOf(text, name, format)
  if (new Set(found.map(({ value }) => value)).size > 1)
    throw refusal(
      'misconfigured',
      `${visible(path, 200)} gives ${visible(name)} several different values (lines ` +
        `${found.map(({ number }) => number).join(', ')})`,
      'keep the one that is meant',
    )
  return found
}

async function standing({ path, format }: Place, names: readonly string[]): Promise<Standing> {
  const { text, stats } = await readText(path)
  const lines: Record<string, readonly { line: string; raw: string; tail: string }[]> = {}
  for (const name of names) {
    lines[name] = assignedOnce(path, text, name, format).map(({ line, raw, tail }) => ({
      line,
      raw,
      tail,
    }))
  }
  const values = Object.entries(valuesOf(text, names, format)).map(([name, value]) => [
    name,
    value === null ? null : new Secret(value),
  ])
  const rest: Rest = {
    file: stats !== undefined,
    lines: Object.fromEntries(Object.entries(lines).map(([name, all]) => [name, [...all]])),
  }
  return { values: Object.fromEntries(values) as Prior, rest: new Secret(JSON.stringify(rest)) }
}

/**
 * Computes the text after an undo; `null` if there was no file before and nothing else
 * has come into it since.
 */
function restored(
  text: string,
  back: Prior,
  how: Rest | undefined,
  format: EnvFormat,
): string | null {
  let edited = text
  for (const [name, value] of Object.entries(back)) {
    const same =
      value === null ? undefined : putBack(edited, name, how?.lines[name] ?? [], value, format)
    edited = same ?? edit(edited, { [name]: value }, format, false)
  }
  return how?.file === false && edited === '' ? null : edited
}

async function usableDirectory(path: string): Promise<void> {
  const directory = dirname(path)
  const shown = visible(directory, 200)
  try {
    if (!(await stat(directory)).isDirectory())
      throw refusal('misconfigured', `${shown} is not a directory`)
    await access(directory, constants.W_OK | constants.X_OK)
  } catch (thrown) {
    throw fileError(thrown, `the directory ${shown}`, `mkdir -p ${shown}`)
  }
}

/**
 * Looks at the file; `undefined` if there is none. Symbolic links are refused: renaming
 * would replace the link, and following it would write elsewhere.
 */
async function regularFile(path: string): Promise<Stats | undefined> {
  const shown = visible(path, 200)
  let found: Stats | undefined
  try {
    found = await lookAt(path)
  } catch (thrown) {
    throw fileError(thrown, shown)
  }
  if (found === undefined) return undefined
  if (found.isSymbolicLink())
    throw refusal(
      'misconfigured',
      `${shown} is a symbolic link`,
      'configure the file to which it points',
    )
  if (!found.isFile()) throw refusal('misconfigured', `${shown} is not a regular file`)
  if (found.size > MAX_BYTES)
    throw refusal('misconfigured', `${shown} is larger than 16 MiB and can't be a .env file`)
  return found
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

/**
 * Within this process, changes of one file wait for each other here; the lock file keeps
 * other processes away.
 */
const queues = new Map<string, Promise<void>>()

/** Computes the new text from the old one; `null` removes the file. */
type Edit = (text: string) => string | null

function change(place: Place, how: Edit): Promise<void> {
  const { path } = place
  const before = queues.get(path) ?? Promise.resolve()
  const mine = before.catch(() => undefined).then(() => withLock(place, () => rewrite(place, how)))
  queues.set(path, mine)
  return mine.finally(() => {
    if (queues.get(path) === mine) queues.delete(path)
  })
}

/** Edits the file until it is as it should be when it is read again. */
async function rewrite(place: Place, how: Edit): Promise<void> {
  const { path } = place
  /** What somebody wrote at the last moment into the file that was replaced. */
  let late: string | undefined
  let written = false
  const once = async (): Promise<boolean> => {
    const content = await readText(path)
    const edited = how(late ?? content.text)
    if (edited === content.text && content.stats !== undefined) return true
    if (content.stats === undefined && (edited === null || edited === '')) return true
    const exchanged = edited !== null && content.stats !== undefined && place.write === 'in-place'
    const replaced = exchanged
      ? await overwrite(path, content, edited)
      : await replace(place, content, edited)
    written ||= replaced !== false
    late = replaced === false ? undefined : replaced.late
    return false
  }
  for (let attempt = 1; attempt <= TRIES; attempt++)
    if (await (written ? afterWrite(once) : once())) return
  throw new AdapterError(
    'unavailable',
    `${visible(path, 200)} is being changed by somebody else all the time`,
    {
      effect: written ? 'unknown' : 'none',
      retryable: true,
    },
  )
}

/**
 * Writes the new text beside the file and gives it the file's name; `null` removes the
 * file. Returns `false`, without having done anything, if the file was changed meanwhile.
 * `late` is what somebody wrote into the old file after it was last compared.
 */
async function replace(
  { path, context }: Place,
  content: Content,
  edited: string | null,
): Promise<false | { readonly late: string | undefined }> {
  const temporary = `${beside(path)}.tmp`
  let handle: FileHandle | undefined
  let replaced: FileHandle | undefined
  let late: string | undefined
  try {
    if (edited !== null) {
      handle = await open(
        temporary,
        constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
        0o600,
      )
      // The attributes are set while the new file is still empty, because only they
      // settle who may read it.
      if (content.stats !== undefined) await copyAttributes(path, content.stats, temporary, context)
      await handle.writeFile(edited)
      await handle.sync()
      await handle.close()
      handle = undefined
    }
    if (content.stats !== undefined)
      replaced = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW).catch(() => undefined)
    const now = await readText(path)
    if (now.hash !== content.hash || now.stats?.ino !== content.stats?.ino) return false
    if (replaced !== undefined && (await replaced.stat()).ino !== content.stats?.ino) return false
    await (edited === null ? rm(path) : rename(temporary, path))
    late = await lateText(replaced, content.hash)
  } catch (thrown) {
    const busy =
      'a single file that is mounted can not be replaced; mount its directory, or ' +
      '"write":"in-place"'
    const hint = codeOf(thrown) === 'EBUSY' ? busy : undefined
    throw fileError(thrown, visible(path, 200), hint)
  } finally {
    await handle?.close().catch(() => undefined)
    await replaced?.close().catch(() => undefined)
    await rm(temporary, { force: true }).catch(() => undefined)
  }
  await syncDirectory(dirname(path))
  return { late }
}

/**
 * Writes the new text into the file itself, in one call, so that a killed process leaves
 * the old text or the new; a shorter text is first filled up with empty lines and then
 * cut. Returns `false`, without having done anything, if the file was changed meanwhile.
 * If the write fails, the old text is put back.
 */
async function overwrite(
  path: string,
  content: Content,
  edited: string,
): Promise<false | { readonly late: undefined }> {
  const shown = visible(path, 200)
  let handle: FileHandle | undefined
  try {
    handle = await open(path, constants.O_RDWR | constants.O_NOFOLLOW)
    const before = await handle.readFile()
    if (hashOf(before) !== content.hash) return false
    const text = Buffer.from(edited)
    const filled = Buffer.concat([
      text,
      Buffer.alloc(Math.max(before.length - text.length, 0), '\n'),
    ])
    try {
      await writeAll(handle, filled)
      await handle.truncate(text.length)
      await handle.sync()
    } catch (thrown) {
      await writeAll(handle, before)
      await handle.truncate(before.length)
      await handle.sync()
      throw thrown
    }
  } catch (thrown) {
    throw fileError(thrown, shown)
  } finally {
    await handle?.close().catch(() => undefined)
  }
  return { late: undefined }
}

async function writeAll(handle: FileHandle, bytes: Buffer): Promise<void> {
  for (let at = 0; at < bytes.length;)
    at += (await handle.write(bytes, at, bytes.length - at, at)).bytesWritten
}

/**
 * Reads the replaced file until it is the same twice in a row, and returns its text if
 * that is not the one that was edited. An empty file does not count as at rest, because
 * whoever has just emptied it is about to write.
 */
async function lateText(
  replaced: FileHandle | undefined,
  hash: string,
): Promise<string | undefined> {
  if (replaced === undefined) return undefined
  let seen = hash
  for (let look = 0; look < TRIES; look++) {
    const { size } = await replaced.stat()
    const { buffer, bytesRead } = await replaced.read(
      Buffer.alloc(Math.min(size, MAX_BYTES)),
      0,
      null,
      0,
    )
    const bytes = buffer.subarray(0, bytesRead)
    const now = hashOf(bytes)
    if (now === seen && bytesRead > 0)
      return now === hash || !new Secret(bytes).isText() ? undefined : bytes.toString()
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
    // Some file systems can't flush a directory; the file itself was flushed.
    if (codeOf(thrown) !== 'EINVAL' && codeOf(thrown) !== 'ENOTSUP')
      throw fileError(thrown, visible(directory, 200))
  } finally {
    await handle.close()
  }
}

/**
 * Runs `body` while holding the lock file. First it removes any temporary file that a
 * killed process left, because that holds values.
 */
async function withLock({ path, write }: Place, body: () => Promise<void>): Promise<void> {
  try {
    await usableDirectory(path)
  } catch (thrown) {
    // If the file may be written but no lock file can be made in its directory, only
    // processes that use the same vault take turns, by the engine's lock of the place.
    if (write === 'in-place' && thrown instanceof AdapterError && thrown.code === 'denied')
      return body()
    throw thrown
  }
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
    const handle = await open(
      lock,
      constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
      0o600,
    )
    try {
      await handle.writeFile(String(process.pid))
    } finally {
      await handle.close()
    }
    return true
  } catch (thrown) {
    if (codeOf(thrown) !== 'EEXIST')
      throw fileError(thrown, `the directory of ${visible(path, 200)}`)
  }
  const holder = await readFile(lock, 'utf8').catch(() => '')
  // An empty lock file belongs to a process that has made it and not yet written its id.
  if (
    /^\d+$/.test(holder) &&
    !isAlive(Number(holder)) &&
    (await readFile(lock, 'utf8').catch(() => '')) === holder
  )
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
  for (const name of names) {
    const maker = name.startsWith(`${prefix}.try-`)
      ? /^\d+/.exec(name.slice(prefix.length + 5))?.[0]
      : undefined
    if (name === `${prefix}.tmp` || (maker !== undefined && !isAlive(Number(maker))))
      await rm(join(dirname(path), name), { force: true })
  }
}

/**
 * Turns an error of the file system into an `AdapterError` without effect: what fails
 * before the renaming has not changed the file. `afterWrite` marks what fails later.
 */
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
      return refusal(
        'misconfigured',
        `${what} is a symbolic link`,
        'configure the file to which it points',
      )
    default:
      return refusal(
        'failed',
        `${what} could not be written (${codeOf(thrown) || 'unknown error'})`,
        hint,
      )
  }
}
