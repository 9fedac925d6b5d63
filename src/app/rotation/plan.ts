/** `plan`: what a rotation would do, step by step, with every outage; reads only. */
import type { RunPlan, SecretRecord, TargetSpec } from '../../core/model.ts'
import { currentVersion } from '../../core/model.ts'
import { AdapterError, usage } from '../../core/errors.ts'
import { humanSpan } from '../../core/duration.ts'
import { visible } from '../../core/names.ts'
import type { Traits } from '../../core/provider.ts'
import { parseConfig } from '../../core/schema.ts'
import type { Target } from '../../core/target.ts'
import { FOREIGN, foreignIn } from '../../engine/foreign.ts'
import { orderOf, parseStep, wordsOf } from '../../engine/steps/kinds.ts'
import { misfitOf } from '../../engine/misfit.ts'
import type { EnginePorts } from '../../engine/ports.ts'
import { namesAt } from '../../engine/standing.ts'
import { loadCheck, loadProvider, loadTarget } from '../adapters/open.ts'
import type { Deps } from '../base/deps.ts'
import { enginePorts } from '../adapters/engine.ts'
import { findSecret } from '../base/find.ts'
import { nextPlan } from '../adapters/next-plan.ts'

interface PlanStep {
  readonly step: string
  readonly target: string | null
  readonly effect: string
}

export interface PlanView {
  readonly path: string
  /** The same for the same plan; changes when anything that would be done changes. */
  readonly hash: string
  readonly steps: readonly PlanStep[]
}

/** A plan as it is shown. */
export interface ShownPlan extends PlanView {
  /**
   * Values that somebody else wrote where this machine can look without asking a service.
   * They are not in the hash, because they are no part of what is done.
   */
  readonly differs: readonly {
    readonly target: string
    readonly names: readonly string[]
    readonly what: string
  }[]
}

/**
 * The plan of one rotation by the provider. Throws `usage` where there is no provider.
 */
export async function planOf(deps: Deps, path: string): Promise<ShownPlan> {
  const secret = await findSecret(deps.vault, path)
  return { ...(await planFor(deps, secret)), differs: await foreignValues(deps, secret) }
}

async function foreignValues(deps: Deps, secret: SecretRecord): Promise<ShownPlan['differs']> {
  const ports = await enginePorts(deps)
  const found: ShownPlan['differs'][number][] = []
  for (const spec of secret.schedule?.targets ?? []) {
    try {
      if ((await ports.adapters.aboutTarget(spec)).settlesAfterMs !== 0) continue
      const session = await ports.adapters.openTarget(spec, secret.path)
      try {
        const values = await session.current?.(namesAt(spec))
        const names = await foreignIn(secret, spec, values ?? {}, (n) =>
          deps.vault.read((reader) => reader.value(secret.id, n)),
        )
        if (names.length > 0) found.push({ target: spec.key, names, what: FOREIGN })
      } finally {
        await session.close()
      }
    } catch (thrown) {
      // A target that can't be read is reported by the preflight of the rotation.
      if (!(thrown instanceof AdapterError)) throw thrown
    }
  }
  return found
}

/** The plan of a secret that was read already. */
export async function planFor(deps: Deps, secret: SecretRecord): Promise<PlanView> {
  const ports = await enginePorts(deps)
  const schedule = secret.schedule
  if (schedule === undefined)
    throw usage(
      `${secret.path} has no provider, so there is nothing to plan`,
      `rotate schedule set ${secret.path} --provider …`,
    )
  const traits = await ports.adapters.traits(schedule.provider)
  const plan = nextPlan(secret, schedule, traits)
  const current = plan.oldVersion
  const fault = await misfitOf(ports.adapters, {
    path: secret.path,
    provider: schedule.provider,
    current:
      current === null
        ? undefined
        : await deps.vault.read((reader) => reader.value(secret.id, current)),
    targets: schedule.targets,
  })
  if (fault !== undefined) {
    const effect =
      `ends here, and nothing is begun, changed or ended: ${fault.why}. ` + `Type: ${fault.hint}`
    const steps = [{ step: 'preflight', target: null, effect }]
    return { path: secret.path, hash: digest(secret.path, steps), steps }
  }
  const title = (await loadProvider(schedule.provider.id)).title
  const steps: PlanStep[] = []
  const silent = await withoutDeploy(plan)
  // A provider that can't verify a value is not asked to.
  if (traits.verifies === false) silent.add('verify')
  for (const step of orderOf(plan, 'forward'))
    if (!silent.has(step)) steps.push(await describe(ports, secret, plan, traits, title, step))
  steps.push(...endSteps(plan, traits))
  return { path: secret.path, hash: digest(secret.path, steps), steps }
}

const MAKES: Readonly<Record<Traits['mints'], string>> = {
  service: 'issues a second credential',
  client: 'makes a new value here',
  person: 'needs a new value that a person makes and hands over',
}

/**
 * With two users that take turns: a note on the one whose turn it is, which will be
 * switched on again where this vault has switched it off, or given another password where
 * somebody else may know the one it has. Otherwise empty.
 */
function switchedOn(secret: SecretRecord, traits: Traits): string {
  if (traits.overlap !== 'two-users' || currentVersion(secret) === undefined) return ''
  const current = currentVersion(secret)?.handle?.id
  const spare = secret.versions.findLast(
    ({ handle }) => handle !== undefined && handle.id !== current,
  )
  if (spare === undefined)
    return (
      '; the user whose turn is next was never current here: whoever logs in as it today, with ' +
      'a password that this vault does not know, is refused from then on'
    )
  if (!['suspended', 'revoked', 'discarded'].includes(spare.state) || spare.offBefore === true)
    return ''
  return (
    `; switches ${visible(spare.handle?.id ?? '', 60)}, which this vault has switched off, ` +
    'on again'
  )
}

/** Deploy steps of targets that have nothing to deploy. */
async function withoutDeploy(plan: RunPlan): Promise<Set<string>> {
  const steps: string[] = []
  for (const target of plan.targets) {
    const adapter = await loadTarget(target.type)
    if (!adapter.deploys(parseConfig(adapter.config, target.config, `target ${target.key}`)))
      steps.push(`deploy:${target.key}`)
  }
  return new Set(steps)
}

async function describe(
  ports: EnginePorts,
  secret: SecretRecord,
  plan: RunPlan,
  traits: Traits,
  title: string,
  step: string,
): Promise<PlanStep> {
  const parsed = parseStep(step)
  if (parsed === undefined) return { step, target: null, effect: secret.path }
  const { kind, key } = parsed
  const target = plan.targets.find((candidate) => candidate.key === key)
  switch (kind) {
    case 'preflight':
      return {
        step,
        target: null,
        effect: 'asks the provider and every target whether the rotation can work; changes nothing',
      }
    case 'create':
      return {
        step,
        target: null,
        effect:
          plan.overlap === 'in-place'
            ? `${title}: replaces the value. OUTAGE: the old one dies at once, consumers ` +
              'fail until they have the new one'
            : `${title}: ${MAKES[traits.mints]}; the old one stays ` +
              `alive${switchedOn(secret, traits)}`,
      }
    case 'verify':
      return { step, target: null, effect: 'asks the provider whether it accepts the new value' }
    case 'deliver:':
    case 'deploy:':
    case 'refresh:': {
      const adapter = target === undefined ? undefined : await loadTarget(target.type)
      const where =
        target === undefined || adapter === undefined
          ? key
          : adapter.describe(parseConfig(adapter.config, target.config, `target ${key}`))
      const pair = Object.values(target?.previous ?? {}).map(
        (name) => `${name} (the value before, during grace)`,
      )
      const names = [...Object.values(target?.names ?? {}), ...pair].join(', ')
      const verb = {
        'deliver:': `writes ${names} to`,
        'deploy:': 'redeploys',
        'refresh:': `after promotion: writes ${names} to`,
      }[kind]
      const undo = kind === 'deploy:' ? '' : undoOf(target, adapter)
      return { step, target: key, effect: `${verb} ${where}${undo === '' ? '' : ` (${undo})`}` }
    }
    case 'check:':
    case 'recheck:': {
      const spec = plan.checks.find((candidate) => candidate.key === key)
      if (spec === undefined || spec.type === 'provider')
        return { step, target: null, effect: 'the provider must accept the new value' }
      const adapter = await loadCheck(spec.type)
      const config = parseConfig(adapter.config, spec.config, `check ${key}`)
      const note = (await ports.adapters.presents(spec))
        ? ''
        : ' (does not present the new value: a sign of life only)'
      return { step, target: null, effect: `${adapter.describe(config)}${note}` }
    }
    case 'promote':
      return {
        step,
        target: null,
        effect:
          'the new version becomes current' +
          (plan.oldVersion === null || plan.graceMs === 0
            ? ''
            : `; version ${plan.oldVersion} stays alive for its grace`),
      }
    case 'suspend-old':
      return {
        step,
        target: null,
        effect: 'the old credential is switched off before anything else',
      }
    // What is only done after a failure is in no plan.
    case 'settle':
    case 'settle:':
    case 'demote':
    case 'restore:':
    case 'prove-old':
    case 'discard':
      return { step, target: null, effect: wordsOf(step) }
    default:
      return kind satisfies never
  }
}

/** What an undo can do there, where that is less than putting back what it has read. */
function undoOf(target: TargetSpec | undefined, adapter: Target | undefined): string {
  if (adapter === undefined || adapter.readable) return ''
  const blind = 'write-only: can not be read back'
  if (adapter.told) return `${blind}; an undo tells it the old version`
  return target?.irreversible === true
    ? `${blind}; irreversible: an undo delivers the old version's value`
    : blind
}

function endSteps(plan: RunPlan, traits: Traits): readonly PlanStep[] {
  if (plan.overlap === 'in-place' || plan.oldVersion === null) return []
  const grace: PlanStep = {
    step: 'grace',
    target: null,
    effect:
      plan.graceMs === 0
        ? 'none: the old value is done with at once'
        : `${humanSpan(plan.graceMs)}: both values work, run-due keeps checking`,
  }
  if (traits.revoke === 'none')
    return [
      grace,
      { step: 'retire', target: null, effect: 'the old value is retired; nobody to revoke it at' },
    ]
  const suspend: PlanStep[] = traits.suspend
    ? [
        {
          step: 'suspend',
          target: null,
          effect: `the old credential is switched off, quarantine ${humanSpan(plan.quarantineMs)}`,
        },
      ]
    : []
  return [
    grace,
    ...suspend,
    {
      step: 'revoke',
      target: null,
      effect: 'the old credential is ended, and proven to be refused',
    },
  ]
}

/** FNV-1a over the plan's text: a name for it, not a protection. */
function digest(path: string, steps: readonly PlanStep[]): string {
  let hash = 0xcbf29ce484222325n
  for (const byte of new TextEncoder().encode(JSON.stringify([path, steps])))
    hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n)
  return hash.toString(16).padStart(16, '0')
}
