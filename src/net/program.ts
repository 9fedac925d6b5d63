/**
 * The rule for programs that may be started: absolute, executable, and not replaceable by
 * another user.
 */
import { constants } from 'node:fs'
import { access, realpath, stat } from 'node:fs/promises'
import { basename, delimiter, dirname, isAbsolute, resolve } from 'node:path'
import { AdapterError } from '../core/errors.ts'
import { visible } from '../core/names.ts'

/**
 * Programs that run a script named on their command line. What happens depends on the
 * script, so the script is held to the same rule.
 */
const INTERPRETER =
  /^(sh|bash|dash|ash|zsh|ksh|fish|node|deno|bun|python|python\d[\d.]*|ruby|perl|php|osascript)$/

export interface Place {
  /** The directory to which relative names refer. */
  readonly cwd: string
  /** The directories in which a bare name is looked for. */
  readonly path: string
}

/**
 * The absolute path of a program. Throws `AdapterError` `misconfigured` if it does not
 * exist, is not executable, or if others may write to it or its directory.
 */
export async function resolveProgram(argv0: string, place: Place): Promise<string> {
  const shown = visible(argv0, 120)
  if (argv0 === '' || argv0.includes('\0'))
    throw new AdapterError('misconfigured', 'the program has no usable name')
  const found = await locate(argv0, place)
  if (found === undefined) {
    const hint = argv0.includes('/')
      ? `create ${resolve(place.cwd, shown)} or correct the path`
      : 'give its full path'
    throw new AdapterError(
      'misconfigured',
      `the program ${shown} does not exist or is not executable`,
      { hints: [hint] },
    )
  }
  await refuseWritable(found)
  return found
}

/** The command line with program and script made absolute; see `Spawn.resolve`. */
export async function resolveArgv(
  argv: readonly string[],
  place: Place,
): Promise<[string, ...string[]]> {
  const [argv0, ...rest] = argv
  if (argv0 === undefined) throw new AdapterError('misconfigured', 'the command to run is empty')
  if (argv.some((part) => part.includes('\0')))
    throw new AdapterError('misconfigured', 'the command to run contains a NUL byte')
  const program = await resolveProgram(argv0, place)
  const args = await Promise.all(rest.map((arg) => absoluteFile(arg, place.cwd)))
  const script = scriptOf(program, args)
  if (script !== undefined && (await isFile(script))) await refuseWritable(script)
  return [program, ...args]
}

async function locate(argv0: string, place: Place): Promise<string | undefined> {
  const candidates = argv0.includes('/')
    ? [resolve(place.cwd, argv0)]
    : place.path.split(delimiter).flatMap((dir) => (isAbsolute(dir) ? [resolve(dir, argv0)] : []))
  for (const candidate of candidates) {
    try {
      await access(candidate, constants.X_OK)
      if (await isFile(candidate)) return candidate
    } catch {
      // The program is not here; the next directory may have it.
    }
  }
  return undefined
}

/**
 * Makes an argument such as `./smoke.sh` absolute: it means the file in the directory of
 * the person who typed it, not of whoever runs the command later.
 */
async function absoluteFile(arg: string, cwd: string): Promise<string> {
  if (!/^\.{1,2}\//.test(arg)) return arg
  const absolute = resolve(cwd, arg)
  return (await isFile(absolute)) ? absolute : arg
}

function scriptOf(program: string, args: readonly string[]): string | undefined {
  if (!INTERPRETER.test(basename(program))) return undefined
  const first = args.find((arg) => !arg.startsWith('-'))
  return first !== undefined && isAbsolute(first) ? first : undefined
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isFile()
  } catch {
    return false
  }
}

/**
 * Throws where others can write to the program or to its directory, because they would
 * decide what runs with the secret on its stdin.
 */
async function refuseWritable(path: string): Promise<void> {
  const real = await realpath(path)
  for (const place of new Set([path, real, dirname(path), dirname(real)])) {
    const { mode, uid } = await stat(place)
    const sticky = (mode & 0o1000) !== 0 && place !== path && place !== real
    const mine = process.geteuid?.() ?? uid
    if ((mode & 0o022) !== 0 && !sticky)
      throw new AdapterError(
        'misconfigured',
        `${visible(path, 200)} can be replaced by other users: ${visible(place, 200)} is ` +
          'writable by group or others',
        {
          hints: [`chmod go-w ${visible(place, 200)}`],
        },
      )
    if (uid !== 0 && uid !== mine && mine !== 0)
      throw new AdapterError(
        'misconfigured',
        `${visible(path, 200)} can be replaced by another user, who owns ${visible(place, 200)}`,
      )
  }
}
