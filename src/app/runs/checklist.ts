/**
 * The five steps of the rotation checklist, ticked from evidence: the journal of the last
 * rotation and its audit rows.
 */
import type { RunRecord, SecretRecord } from '../../core/model.ts'
import { currentVersion, versionOf } from '../../core/model.ts'

export interface ChecklistItem {
  readonly step: 1 | 2 | 3 | 4 | 5
  readonly title: string
  /** `no`: it did not happen, or nothing shows that it did. */
  readonly status: 'yes' | 'no' | 'not-needed'
  readonly evidence: string
}

/**
 * `run` is the last rotation of the secret, if there was one; `auditRows` how many events
 * name it, or the secret.
 */
export function checklist(
  secret: SecretRecord,
  run: RunRecord | undefined,
  auditRows: number,
): readonly ChecklistItem[] {
  const item = (
    step: ChecklistItem['step'],
    title: string,
    status: ChecklistItem['status'],
    evidence: string,
  ): ChecklistItem => ({
    step,
    title,
    status,
    evidence,
  })
  const titles = [
    'Create the replacement provider key',
    'Write the replacement to the vault',
    'Smoke test before revocation',
    'Refresh long-running agents',
    'Audit and document',
  ] as const
  if (run === undefined) {
    const stored = currentVersion(secret)
    const byHand =
      stored === undefined || stored.n === 1
        ? undefined
        : `version ${stored.n} was stored by ${stored.createdBy}, ` +
          `${new Date(stored.createdAt).toISOString()}`
    return titles.map((title, i) => {
      if (i === 1 && byHand !== undefined) return item(2, title, 'yes', byHand)
      if (i === 4 && auditRows > 0)
        return item(5, title, 'yes', `${auditRows} audit events name the secret`)
      return item((i + 1) as ChecklistItem['step'], title, 'no', 'no rotation has been run')
    })
  }
  const done = run.events.flatMap((event) => (event.type === 'done' ? [event] : []))
  // A step that had nothing to do says so in its detail; a bare one really called.
  const called = done.filter(({ detail }) => detail === undefined)
  const did = (prefix: string): readonly string[] =>
    called
      .filter(({ step }) => step === prefix || step.startsWith(`${prefix}:`))
      .map(({ step }) => step)
  const made = done.findLast((event) => event.version !== undefined)?.version ?? run.plan.newVersion
  const version = made === null ? undefined : versionOf(secret, made)
  const checks = done.flatMap((event) => event.checks ?? [])
  const green = checks.filter((check) => check.ok && check.presented)
  const alive = checks.filter((check) => check.ok && !check.presented)
  const verified = did('verify').length > 0
  const refreshed = [...did('refresh'), ...did('deploy')]
  return [
    run.plan.source === 'provider'
      ? item(
          1,
          titles[0],
          version !== undefined ? 'yes' : 'no',
          version === undefined
            ? `run ${run.id} made none`
            : `${run.plan.provider?.id ?? 'provider'} issued ${version.hint}`,
        )
      : item(
          1,
          titles[0],
          'not-needed',
          run.plan.source === 'supplied'
            ? 'the value was given by the operator'
            : 'an earlier version was made current again',
        ),
    item(
      2,
      titles[1],
      version === undefined ? 'no' : 'yes',
      version === undefined
        ? 'no new version'
        : `version ${version.n}, sealed ${new Date(version.createdAt).toISOString()}`,
    ),
    item(
      3,
      titles[2],
      green.length > 0 || verified ? 'yes' : 'no',
      green.length > 0
        ? `${green.map((check) => check.name).join(', ')} accepted the new value`
        : verified
          ? 'the provider accepted the new value'
          : alive.length > 0
            ? `${alive.map((check) => check.name).join(', ')}: a sign of life only, the ` +
              'value was not presented'
            : 'no check is configured',
    ),
    item(
      4,
      titles[3],
      refreshed.length > 0 ? 'yes' : run.plan.targets.length === 0 ? 'no' : 'not-needed',
      refreshed.length > 0
        ? refreshed.join(', ')
        : run.plan.targets.length === 0
          ? 'no target is configured; restart consumers yourself'
          : 'targets take the value up by themselves',
    ),
    item(
      5,
      titles[4],
      auditRows > 0 ? 'yes' : 'no',
      auditRows > 0 ? `${auditRows} audit events of run ${run.id}` : 'no audit event names the run',
    ),
  ]
}
