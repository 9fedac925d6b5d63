import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import {
  allKinds,
  conditionOf,
  kindOf,
  KINDS,
  parseStep,
  wordsOf,
} from '../../src/engine/steps/kinds.ts'

/** The steps whose intent, outcome or failure is committed in the crash matrix. */
function journaled(): readonly string[] {
  const text = readFileSync(new URL('points.txt', import.meta.url), 'utf8')
  const found = text.matchAll(/=(\S+):(?:intent|outcome|failed)(?=\s)/g)
  return [...new Set([...found].map(([, step = '']) => step))]
}

describe('the table of step kinds', () => {
  test.each(allKinds)('%s is said in words, not as it is written in journals', (kind) => {
    const step = kind.endsWith(':') ? `${kind}web` : kind
    expect(wordsOf(step)).toMatch(kind.endsWith(':') ? /^[a-z ]+ web$/ : /^[a-z ]+$/)
  })

  test('no two kinds are said in the same words', () => {
    const words = allKinds.map((kind) => KINDS[kind].words)
    expect(new Set(words).size).toBe(words.length)
  })

  test('what a matrix run journals is in the table', () => {
    const steps = journaled()
    expect(steps.length).toBeGreaterThan(10)
    expect(steps.filter((step) => parseStep(step) === undefined)).toEqual([])
  })

  test('a bare settle asks the provider, one with a key is about a target', () => {
    expect(parseStep('settle')).toEqual({ kind: 'settle', key: '' })
    expect(parseStep('settle:web')).toEqual({ kind: 'settle:', key: 'web' })
    expect(kindOf('settle').asks).toBe('provider')
    expect(kindOf('settle:web').asks).toBeUndefined()
  })

  test('a key with a colon stays whole, and an unknown step is said as it is', () => {
    expect(parseStep('deliver:a:b')).toEqual({ kind: 'deliver:', key: 'a:b' })
    expect(parseStep('toString')).toBeUndefined()
    expect(wordsOf('from-a-later-program:x')).toBe('from-a-later-program:x')
    expect(conditionOf('deliver:a:b')).toBe('target:a:b')
    expect(conditionOf('recheck:a')).toBe('check:a')
    expect(conditionOf('verify')).toBe('verify')
  })
})
