/**
 * The program `fly` with the secrets and machines behind it, run as a process
 * (how it reads stdin and what it prints is from its source,
 * internal/command/secrets of https://github.com/superfly/flyctl: parser.go, import.go,
 * list.go, deploy.go).
 */
import { createHash } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { FakeProgram, type Invocation, play, type Reply } from './program.ts'

interface FlyApp {
  /** What the vault of the app holds. */
  secrets: Record<string, string>
  /** What each machine was booted with. */
  machines: Record<string, string>[]
}

interface FlyState {
  token: string
  apps: Record<string, FlyApp>
}

export class FakeFly extends FakeProgram<FlyState> {
  constructor() {
    super('fly', fileURLToPath(import.meta.url), { token: 'FlyV1 fm2_lJPECAAAAAAAAAAA', apps: {} })
  }

  add(name: string, secrets: Readonly<Record<string, string>> = {}, machines = 2): void {
    this.change(({ apps }) => {
      apps[name] = {
        secrets: { ...secrets },
        machines: Array.from({ length: machines }, () => ({ ...secrets })),
      }
    })
  }

  app(name: string): FlyApp {
    return this.state.apps[name] ?? { secrets: {}, machines: [] }
  }
}

const error = (text: string): Reply => ({ code: 1, stderr: `Error: ${text}\n` })

const digestOf = (value: string): string =>
  createHash('sha256').update(`salt of the app ${value}`).digest('hex').slice(0, 16)

/** parser.go, line by line. */
function parsed(text: string): Record<string, string> | undefined {
  const secrets: Record<string, string> = {}
  let open: { readonly name: string; value: string } | undefined
  for (const line of text.replace(/\n$/, '').split(/\r?\n/)) {
    if (open !== undefined) {
      if (line.endsWith('"""')) {
        secrets[open.name] = open.value + line.slice(0, -3)
        open = undefined
      } else open.value += `${line}\n`
      continue
    }
    if (line.startsWith('#') || line.trim() === '') continue
    const at = line.indexOf('=')
    if (at < 0) return undefined
    const name = line.slice(0, at).trim()
    const value = line.slice(at + 1).replace(/^ +/, '')
    if (value.startsWith('"""')) open = { name, value: `${value.slice(3)}\n` }
    else secrets[name] = value.startsWith('"') && value.endsWith('"') ? value.slice(1, -1) : value
  }
  return secrets
}

function answer({ argv, env, piped, flag }: Invocation, state: FlyState): Reply {
  if (env['FLY_API_TOKEN'] === undefined)
    return error("No access token available. Please login with 'flyctl auth login'")
  if (env['FLY_API_TOKEN'] !== state.token) return error('You must be authenticated to view this.')
  const app = state.apps[flag('--app') ?? '']
  if (app === undefined) return error('Could not find App')
  const [group, verb] = argv
  if (group !== 'secrets') return error('unknown command')
  if (verb === 'list') {
    const rows = Object.entries(app.secrets).map(([name, value]) => ({
      name,
      digest: digestOf(value),
      status: 'Deployed',
    }))
    return { code: 0, stdout: argv.includes('--json') ? JSON.stringify(rows) : 'NAME\tDIGEST' }
  }
  if (verb === 'import') {
    const secrets = parsed(piped ?? '')
    if (secrets === undefined)
      return error(
        'Failed to parse secrets from stdin: Secrets must be provided as NAME=VALUE pairs ' +
          `(${piped ?? ''} is invalid)`,
      )
    if (Object.keys(secrets).length === 0) return error('requires at least one SECRET=VALUE pair')
    Object.assign(app.secrets, secrets)
    if (argv.includes('--stage'))
      return { code: 0, stdout: 'Secrets have been staged, but not set on VMs.' }
  } else if (verb === 'unset') {
    for (const name of argv.slice(2, argv.indexOf('--app'))) delete app.secrets[name]
    if (argv.includes('--stage'))
      return { code: 0, stdout: 'Secrets have been staged, but not set on VMs.' }
  } else if (verb !== 'deploy') return error('unknown command')
  if (app.machines.length === 0)
    return error(
      "before using 'fly secrets deploy', you must first deploy your app at least once using " +
        "'fly deploy'",
    )
  app.machines = app.machines.map(() => ({ ...app.secrets }))
  return { code: 0, stdout: 'Updating existing machines' }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) play<FlyState>(answer)
