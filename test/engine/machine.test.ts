import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Failure, RunEvent, RunPlan } from '../../src/core/model.ts'
import {
  canGoBack,
  decide,
  evolve,
  initial,
  type RunState,
  stateOf,
} from '../../src/engine/machine.ts'
import { orderOf } from '../../src/engine/steps/kinds.ts'

const RUNS = Number(process.env['ROTATE_PROPERTY_RUNS'] ?? 500)

const plans: fc.Arbitrary<RunPlan> = fc
  .record({
    source: fc.constantFrom('provider' as const, 'supplied' as const, 'stored' as const),
    overlap: fc.constantFrom('two-live' as const, 'two-users' as const, 'in-place' as const),
    before: fc.nat(2),
    after: fc.nat(2),
    checks: fc.nat(2),
    old: fc.boolean(),
  })
  .map(({ source, overlap, before, after, checks, old }) => ({
    source,
    provider: { id: 'p', config: {} },
    overlap: source === 'provider' ? overlap : 'two-live',
    targets: [
      ...Array.from({ length: before }, (_, i) => ({
        key: `b${i}`,
        type: 't',
        phase: 'before-promote' as const,
        names: {},
        config: {},
      })),
      ...Array.from({ length: after }, (_, i) => ({
        key: `a${i}`,
        type: 't',
        phase: 'after-promote' as const,
        names: {},
        config: {},
      })),
    ],
    checks: Array.from({ length: checks }, (_, i) => ({
      key: `c${i}`,
      type: 't',
      withinMs: 0,
      config: {},
    })),
    graceMs: 0,
    quarantineMs: 0,
    oldVersion: old ? 1 : null,
    newVersion: source === 'provider' ? null : 2,
    emergency: false,
  }))

const failure = (retryable: boolean, effect: Failure['effect'] = 'none'): Failure => ({
  code: 'failed',
  effect,
  retryable,
  message: 'no',
  hints: [],
})

/**
 * Plays a run against a far side that misbehaves as the numbers say, and behaves once
 * they are used up. Returns every event.
 */
function played(
  plan: RunPlan,
  luck: readonly number[],
): { events: RunEvent[]; state: RunState; commands: number } {
  const events: RunEvent[] = [{ type: 'began', at: 0 }]
  let state = stateOf({ plan, events })
  let now = 0
  let drawn = 0
  const draw = (sides: number): number =>
    luck[drawn] === undefined ? 0 : (luck[drawn++] ?? 0) % sides
  const add = (...more: RunEvent[]): void => {
    for (const event of more) {
      events.push(event)
      state = evolve(plan, state, event)
    }
  }
  for (let commands = 1; commands < 3000; commands++) {
    const command = decide(plan, state, now)
    expect(decide(plan, state, now)).toEqual(command)
    const at = ++now
    switch (command.do) {
      case 'give-up':
        add({ type: 'done', at, step: command.step, ms: 0, detail: 'accepted by the operator' })
        break
      case 'close':
        add({ type: 'closed', at, status: command.status })
        break
      case 'turn':
        add({ type: 'turned', at, direction: command.direction, reason: command.reason })
        break
      case 'wait':
        expect(command.until).toBeGreaterThan(now - 1)
        now = command.until
        break
      case 'park':
        add({ type: 'parked', at, reason: command.reason, until: at + 1 })
        break
      case 'stop': {
        if (state.closed !== undefined) return { events, state, commands }
        // Another process goes on later, or an operator, who decides where deciding is
        // possible.
        const wish = draw(4)
        if (state.create === 'ambiguous' || (wish === 1 && canGoBack(plan, state)))
          add({ type: 'turned', at, direction: 'back', reason: 'operator' })
        else if (wish === 2 && state.newVersion !== null)
          add({ type: 'turned', at, direction: 'forward', reason: 'operator' })
        else add({ type: 'turned', at, direction: state.direction, reason: 'again' })
        break
      }
      case 'settle': {
        const how = draw(6)
        if (how === 0 || how === 1) add({ type: 'settled', at, outcome: 'none', detail: '' })
        else if (how === 2) add({ type: 'settled', at, outcome: 'applied', detail: '', version: 2 })
        else if (how === 3) add({ type: 'settled', at, outcome: 'stray', detail: '' })
        else if (how === 4) add({ type: 'settled', at, outcome: 'ambiguous', detail: 'who knows' })
        else
          add({
            type: 'failed',
            at,
            step: 'settle',
            ms: 0,
            failure: failure(draw(2) === 0),
            retryAt: at + 5,
          })
        break
      }
      case 'step': {
        const { step } = command
        const how = draw(5)
        if (step === 'create') {
          if (how === 4) {
            add({ type: 'failed', at, step, ms: 0, failure: failure(true), retryAt: at + 5 })
            break
          }
          add({
            type: 'intended',
            at,
            step,
            intent: { tag: 't', before: [], material: {}, at, attempt: 1 },
          })
          if (how === 3) break // The process dies.
          if (how === 0) add({ type: 'done', at, step, ms: 0, version: 2 })
          else
            add({
              type: 'failed',
              at,
              step,
              ms: 0,
              failure: failure(draw(2) === 0, how === 1 ? 'none' : 'unknown'),
              retryAt: at + 5,
            })
          break
        }
        if (how < 2) add({ type: 'done', at, step, ms: 0 })
        else if (how === 2 && /^(deliver|refresh):/.test(step))
          add({ type: 'intended', at, step, prior: {} })
        else
          add({
            type: 'failed',
            at,
            step,
            ms: 0,
            failure: failure(how === 3),
            retryAt: at + (how === 4 ? 10 * 86_400_000 : 5),
          })
        break
      }
      default:
        return command satisfies never
    }
  }
  throw new Error(`it does not end: ${JSON.stringify(events.slice(-6))}`)
}

describe('decide and evolve', () => {
  const luck = fc.array(fc.nat(59), { maxLength: 60 })

  test('every run ends, whatever goes wrong a finite number of times', () => {
    fc.assert(
      fc.property(plans, luck, (plan, numbers) => void played(plan, numbers)),
      { numRuns: RUNS },
    )
  })

  test('promoted only after everything before it is done; and what closes as a success is promoted', () => {
    fc.assert(
      fc.property(plans, luck, (plan, numbers) => {
        const { events, state } = played(plan, numbers)
        for (const [index, event] of events.entries()) {
          if (event.type !== 'done' || event.step !== 'promote') continue
          const then = stateOf({ plan, events: events.slice(0, index) })
          for (const step of orderOf(plan, 'forward')) {
            if (step === 'promote') break
            expect(then.steps[step]?.status, step).toBe('done')
          }
        }
        if (state.closed === 'success') {
          expect(state.promoted).toBe(true)
          for (const step of orderOf(plan, 'forward'))
            expect(state.steps[step]?.status, step).toBe('done')
        } else expect(state.promoted).toBe(false)
      }),
      { numRuns: RUNS },
    )
  })

  test('the new value is given up only when not current and every touched target restored; never in place', () => {
    fc.assert(
      fc.property(plans, luck, (plan, numbers) => {
        const { events } = played(plan, numbers)
        for (const [index, event] of events.entries()) {
          if (event.type !== 'done' || event.step !== 'discard') continue
          const then = stateOf({ plan, events: events.slice(0, index) })
          expect(then.promoted).toBe(false)
          expect(then.direction).toBe('back')
          expect(plan.overlap === 'in-place' && then.create === 'issued').toBe(false)
          for (const target of plan.targets) {
            const wrote = (step: string): boolean =>
              then.steps[step]?.begun === true || then.steps[step]?.status === 'done'
            if (wrote(`deliver:${target.key}`) || wrote(`refresh:${target.key}`))
              expect(then.steps[`restore:${target.key}`]?.status).toBe('done')
          }
        }
      }),
      { numRuns: RUNS },
    )
  })

  test('a create is called again only after the one before it was settled', () => {
    fc.assert(
      fc.property(plans, luck, (plan, numbers) => {
        let open = false
        for (const event of played(plan, numbers).events) {
          if (event.type === 'intended' && event.step === 'create') {
            expect(open).toBe(false)
            open = true
          }
          if (event.type === 'settled' || (event.type === 'done' && event.step === 'create'))
            open = false
          if (event.type === 'failed' && event.step === 'create' && event.failure.effect === 'none')
            open = false
        }
      }),
      { numRuns: RUNS },
    )
  })

  test('total: any journal at all has a state and a next command', () => {
    const steps = fc.constantFrom(
      'preflight',
      'create',
      'verify',
      'deliver:b0',
      'deploy:b0',
      'check:c0',
      'promote',
      'refresh:a0',
      'recheck:c0',
      'demote',
      'restore:b0',
      'prove-old',
      'discard',
      'settle',
    )
    const events: fc.Arbitrary<RunEvent> = fc.oneof(
      steps.map((step): RunEvent => ({ type: 'intended', at: 0, step })),
      steps.map((step): RunEvent => ({ type: 'done', at: 0, step, ms: 0, version: 2 })),
      fc.tuple(steps, fc.boolean()).map(([step, retryable]): RunEvent => ({
        type: 'failed',
        at: 0,
        step,
        ms: 0,
        failure: failure(retryable, 'unknown'),
      })),
      fc
        .constantFrom('none', 'applied', 'stray', 'ambiguous')
        .map((outcome): RunEvent => ({ type: 'settled', at: 0, outcome, detail: '' })),
      fc
        .constantFrom('back', 'forward')
        .map((direction): RunEvent => ({ type: 'turned', at: 0, direction, reason: '' })),
      fc.constant<RunEvent>({ type: 'parked', at: 0, reason: '' }),
    )
    fc.assert(
      fc.property(plans, fc.array(events, { maxLength: 40 }), (plan, journal) => {
        const state = journal.reduce((before, event) => evolve(plan, before, event), initial(plan))
        expect(decide(plan, state, 0).do).toBeDefined()
        if (state.parked !== undefined) expect(decide(plan, state, 0)).toEqual({ do: 'stop' })
      }),
      { numRuns: RUNS },
    )
  })
})
