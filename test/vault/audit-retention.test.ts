/**
 * Retention counts calendar years in UTC, and events are pruned only by a clock that can
 * be trusted.
 */
import { describe, expect, test } from 'vitest'
import { pruneAudit, yearsBefore } from '../../src/app/vault/audit.ts'
import type { Deps } from '../../src/app/base/deps.ts'
import { all, anEntry, codeOf, makeVault } from './support.ts'

const at = (text: string): number => Date.parse(text)

describe('retention', () => {
  test.each([
    ['2026-11-21T10:00:00.000Z', 7, '2019-11-21T10:00:00.000Z'],
    ['2028-02-29T12:00:00.000Z', 7, '2021-02-28T12:00:00.000Z'],
    ['2031-02-28T12:00:00.000Z', 7, '2024-02-28T12:00:00.000Z'],
    ['2028-02-29T12:00:00.000Z', 8, '2020-02-29T12:00:00.000Z'],
    ['2027-01-01T00:00:00.000Z', 1, '2026-01-01T00:00:00.000Z'],
  ])('%s less %i years is %s', (now, years, before) => {
    expect(new Date(yearsBefore(at(now), years)).toISOString()).toBe(before)
  })

  test('goes by a clock that is neither behind nor far ahead of what the vault has seen', async () => {
    const { vault, clock } = await makeVault()
    clock.date = at('2040-01-01T00:00:00Z')
    await vault.transact((tx) => Promise.resolve(tx.audit(anEntry('a/b'))))
    const deps = (reason?: string): Deps =>
      ({
        vault,
        clock,
        actor: 'test',
        reason,
        signal: new AbortController().signal,
      }) as unknown as Deps
    let asked = 0
    const input = {
      years: 7,
      force: false,
      dryRun: false,
      confirm: () => Promise.resolve(void asked++),
    }
    clock.date = at('2039-12-31T23:00:00Z')
    expect(await codeOf(pruneAudit(deps(), input))).toBe('denied')
    clock.date = at('2048-01-01T00:00:00Z')
    expect(await codeOf(pruneAudit(deps(), input))).toBe('denied')
    clock.date = at('2040-06-01T00:00:00Z')
    expect(await codeOf(pruneAudit(deps(), { ...input, years: 6 }))).toBe('denied')
    expect(await codeOf(pruneAudit(deps(), { ...input, years: 0 }))).toBe('usage')
    expect(await codeOf(pruneAudit(deps(), { ...input, force: true }))).toBe('usage')
    expect(await pruneAudit(deps(), { ...input, dryRun: true })).toMatchObject({ from: 0, to: 1 })
    expect(asked).toBe(0)
    expect(
      await codeOf(
        pruneAudit(deps(), { ...input, confirm: () => Promise.reject(new Error('no')) }),
      ),
    ).not.toBe('no error')
    expect(await all(vault.auditEvents({}))).toHaveLength(2)
    expect(await pruneAudit(deps('seven years are over'), input)).toMatchObject({ from: 0, to: 1 })
    expect(asked).toBe(1)
    expect((await all(vault.auditEvents({}))).map(({ action }) => action)).toEqual([
      'secret_created',
      'audit_pruned',
    ])
    const [event] = await all(vault.auditEvents({ action: 'audit_pruned' }))
    expect(event?.metadata).toEqual({
      first: 1,
      last: 1,
      count: 1,
      older_than: '7y',
      before: '2033-06-01T00:00:00.000Z',
      reason: 'seven years are over',
    })
  })
})
