/**
 * `provider test` and `target test`: could a rotation begin, as far as its provider and
 * its targets are concerned? Reads only. A missing right is named by the error of the
 * adapter, and `provider test` also returns the least rights that the credential needs.
 */
import { AdapterError, RotateError } from '../../core/errors.ts'
import {
  currentVersion,
  type RunRecord,
  type Schedule,
  type SecretRecord,
} from '../../core/model.ts'
import { newId } from '../../core/ids.ts'
import { parseConfig } from '../../core/schema.ts'
import { callAdapter, credentialOf, Workbench } from '../../engine/session.ts'
import type { EnginePorts } from '../../engine/ports.ts'
import { mayWrite, refuseMisfit } from '../../engine/steps/preflight.ts'
import { loadProvider } from './open.ts'
import type { CheckReport } from './check.ts'
import type { Deps } from '../base/deps.ts'
import { enginePorts } from './engine.ts'
import { findSecret } from '../base/find.ts'
import { nextPlan } from './next-plan.ts'

export interface AdapterTest extends CheckReport {
  /**
   * The least rights that the configured credential needs, where the provider knows them.
   */
  readonly permissions: string | null
}

type Line = CheckReport['checks'][number]

/** Asks one question; an adapter's refusal is its answer, with the first of its hints. */
async function askOne(
  deps: Deps,
  name: string,
  type: string,
  ask: () => Promise<string>,
): Promise<Line> {
  const started = deps.clock.monotonic()
  const line = (ok: boolean, detail: string): Line => ({
    name,
    type,
    ok,
    ms: Math.round(deps.clock.monotonic() - started),
    detail,
  })
  try {
    return line(true, await callAdapter(ask))
  } catch (thrown) {
    if (!(thrown instanceof AdapterError)) throw thrown
    const [hint] = thrown.hints
    return line(false, hint === undefined ? thrown.message : `${thrown.message} (${hint})`)
  }
}

async function findScheduled(
  deps: Deps,
  path: string,
): Promise<{ readonly secret: SecretRecord; readonly schedule: Schedule }> {
  const secret = await findSecret(deps.vault, path)
  if (secret.schedule === undefined)
    throw new RotateError(
      'not-found',
      `${secret.path} has no schedule, so there is nothing to test`,
      {
        hint: `rotate schedule set ${secret.path} --provider …`,
      },
    )
  return { secret, schedule: secret.schedule }
}

/**
 * Runs the preflight of the provider as a rotation does, and asks whether it accepts the
 * current value. `not-found` without a schedule.
 */
export async function testProvider(deps: Deps, path: string): Promise<AdapterTest> {
  const { secret, schedule } = await findScheduled(deps, path)
  const ports = await enginePorts(deps)
  const ref = schedule.provider
  const current = currentVersion(secret)
  const fields =
    current === undefined
      ? undefined
      : await deps.vault.read((reader) => reader.value(secret.id, current.n))
  const credential = fields === undefined ? undefined : credentialOf(fields, current?.handle)
  const checks: Line[] = []
  const provider = await loadProvider(ref.id)
  let permissions: string | undefined
  checks.push(
    await askOne(deps, 'preflight', ref.id, async () => {
      permissions = provider.permissions(
        parseConfig(provider.config, ref.config, `provider ${ref.id}`),
      )
      const session = await ports.adapters.openProvider(ref, secret.path)
      try {
        await session.preflight(
          current?.providerId === undefined || current.providerId === ref.id
            ? credential
            : undefined,
        )
      } finally {
        await session.close()
      }
      return 'a rotation could begin'
    }),
  )
  if (
    credential !== undefined &&
    (current?.providerId === undefined || current.providerId === ref.id)
  )
    checks.push(
      await askOne(deps, 'current value', ref.id, async () => {
        const session = await ports.adapters.openProvider(ref, secret.path)
        try {
          if (session.verify === undefined) return 'this provider can not be asked'
          await session.verify(credential, 'live')
          return 'accepted'
        } finally {
          await session.close()
        }
      }),
    )
  return { ok: checks.every(({ ok }) => ok), checks, permissions: permissions ?? null }
}

/**
 * Asks the targets all that the preflight of a rotation asks them. Changes nothing there.
 * `not-found` without a schedule or a target.
 */
export async function testTargets(deps: Deps, path: string): Promise<AdapterTest> {
  const { secret, schedule } = await findScheduled(deps, path)
  if (schedule.targets.length === 0)
    throw new RotateError('not-found', `${secret.path} has no target`, {
      hint: `rotate schedule set ${secret.path} --target …`,
    })
  const ports = await enginePorts(deps)
  const bench = new Workbench(ports)
  const loaded = { run: await pretended(deps, ports, secret, schedule), secret }
  const checks: Line[] = []
  try {
    const together = await askOne(deps, 'preflight', schedule.provider.id, async () => {
      await refuseMisfit(bench, loaded)
      return 'value and targets go together'
    })
    if (!together.ok) checks.push(together)
    for (const spec of schedule.targets)
      checks.push(
        await askOne(deps, spec.key, spec.type, async () => {
          const seen = await mayWrite(bench, loaded, spec)
          return ['can be written', ...seen].join('; ')
        }),
      )
  } finally {
    await bench.close()
  }
  return { ok: checks.every(({ ok }) => ok), checks, permissions: null }
}

/** The run that would begin now. It is stored nowhere. */
async function pretended(
  deps: Deps,
  ports: EnginePorts,
  secret: SecretRecord,
  schedule: Schedule,
): Promise<RunRecord> {
  const traits = await ports.adapters.traits(schedule.provider)
  return {
    id: newId('run', deps.clock.now(), deps.random),
    secretId: secret.id,
    path: secret.path,
    kind: 'rotate',
    trigger: 'manual',
    actor: deps.actor,
    plan: nextPlan(secret, schedule, traits),
    startedAt: deps.clock.now(),
    status: 'open',
    events: [],
  }
}
