/**
 * Turns records into the `data` of `--json`. Records may change; these shapes only grow,
 * because scripts rely on them (test/contract).
 */
import type { SetResult } from '../../app/secrets/set.ts'
import { lastRotatedAt, nextRotationAt, type SecretStanding } from '../../app/base/standing.ts'
import type { Got } from '../../app/secrets/get.ts'
import { iso, isoOrNull } from '../../core/duration.ts'
import { currentVersion, type SecretRecord, type VersionRecord } from '../../core/model.ts'
import { type Fields, type Secret, singleValue } from '../../core/secret.ts'

export function setData({ secret, version, previousVersion }: SetResult) {
  return {
    id: secret.id,
    path: secret.path,
    version: version.n,
    previousVersion,
    type: secret.type,
    tier: secret.tier,
    metadata: secret.metadata,
    tags: secret.tags,
    fingerprint: version.fingerprint,
    createdAt: iso(version.createdAt),
  }
}

/** Text as it is; bytes that are not UTF-8 as base64, and then `encoding` says so. */
function plain(fields: Fields): { readonly value: unknown; readonly encoding?: 'base64' } {
  const text = Object.values(fields).every((field) => field.isText())
  const show = (field: Secret): string =>
    text ? field.reveal() : Buffer.from(field.bytes()).toString('base64')
  const only = singleValue(fields)
  const value =
    only === undefined
      ? Object.fromEntries(Object.entries(fields).map(([name, field]) => [name, show(field)]))
      : show(only)
  return text ? { value } : { value, encoding: 'base64' }
}

export function getData(got: Got, fields: Fields = got.fields) {
  return {
    path: got.secret.path,
    ...plain(fields),
    version: got.version.n,
    label: got.version.labels[0] ?? null,
    type: got.secret.type,
    tier: got.secret.tier,
    expiresAt: isoOrNull(got.version.expiresAt),
    updatedAt: iso(got.version.promotedAt ?? got.version.createdAt),
  }
}

export function listItem(secret: SecretRecord, standing: SecretStanding) {
  const current = currentVersion(secret)
  return {
    id: secret.id,
    path: secret.path,
    version: current?.n ?? null,
    type: secret.type,
    tier: secret.tier,
    tags: secret.tags,
    status: standing,
    provider: secret.schedule?.provider.id ?? current?.providerId ?? null,
    lastRotatedAt: isoOrNull(lastRotatedAt(secret)),
    nextRotationAt: isoOrNull(nextRotationAt(secret)),
    versions: secret.versions.length,
  }
}

export function versionItem(version: VersionRecord) {
  return {
    version: version.n,
    labels: version.labels,
    state: version.state,
    createdAt: iso(version.createdAt),
    createdBy: version.createdBy,
    source: version.source,
    fingerprint: version.fingerprint,
    hint: version.hint,
    providerKeyId: version.handle?.id ?? null,
    expiresAt: isoOrNull(version.expiresAt),
    replacedAt: isoOrNull(version.replacedAt),
    endedAt: isoOrNull(version.endedAt),
    endsAt: isoOrNull(version.retirement?.deleteAfter ?? version.retirement?.notBefore),
    endFailures: version.retirement?.failures ?? 0,
    endError: version.retirement?.lastError ?? null,
    endRetryAt: isoOrNull(
      version.retirement?.retryAt === 0 ? undefined : version.retirement?.retryAt,
    ),
    note: version.note ?? null,
    metadata: version.metadata ?? {},
  }
}
