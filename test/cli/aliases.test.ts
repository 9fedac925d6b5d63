import { describe, expect, test } from 'vitest'
import { rewrite } from '../../src/cli/aliases.ts'

const cases: readonly (readonly [string, string])[] = [
  ['get a/b', 'get a/b'],
  [
    'rotation enable my-project --env production --key K --provider aws',
    'schedule set my-project/production/K --provider aws',
  ],
  ['rotation rotate my-project --env production --key K', 'rotate my-project/production/K'],
  [
    'rotation disable my-project --env=production --key=K',
    'schedule disable my-project/production/K',
  ],
  ['rotation list my-project --status failed', 'schedule list my-project --status failed'],
  [
    'rotation show my-project --env production --key K --json',
    'schedule show my-project/production/K --json',
  ],
  ['rotation history my-project --env production --key K', 'history my-project/production/K'],
  ['rotation pause -p my-project -e production -k K', 'schedule pause my-project/production/K'],
  [
    '--json rotation resume my-project --env production --key K',
    '--json schedule resume my-project/production/K',
  ],
  ['secrets set a/b VALUE --type api_key', 'set a/b VALUE --type api_key'],
  ['secrets rotate a/b --value NEW', 'rotate a/b --value NEW'],
  ['secrets rotate a/b NEW', 'rotate a/b --value=NEW'],
  ['secrets rotate a/b -', 'rotate a/b -'],
  ['secrets get a/b --silent', 'get a/b --silent'],
  ['audit my-project --action secret_rotated', 'audit my-project --action secret_rotated'],
  ['audit --action secret_rotated my-project', 'audit --action secret_rotated my-project'],
  ['set -p p -e e -k K --generate', 'set p/e/K --generate=default'],
  ['set -p p -k K -- -e', 'set p/K -- -e'],
  ['exec a/b -- printenv -p', 'exec a/b -- printenv -p'],
  ['list -p p -e e', 'list p/e'],
  ['schedule pause -p p -k K', 'schedule pause p/K'],
  ['--vault secrets get a/b', '--vault secrets get a/b'],
  ['get --key-file k a/b', 'get --key-file k a/b'],
]

describe('aliases', () => {
  test.each(cases)('%s → %s', (typed, wanted) => {
    expect(rewrite(typed.split(' '), {}).join(' ')).toBe(wanted)
  })

  test('ROTATE_PROJECT and ROTATE_ENV fill in for what is not given', () => {
    const env = { ROTATE_PROJECT: 'p', ROTATE_ENV: 'e' }
    expect(rewrite(['get', '-k', 'K'], env)).toEqual(['get', 'p/e/K'])
    expect(rewrite(['list', '-p', 'q'], env)).toEqual(['list', 'q'])
    expect(() => rewrite(['get', '-k', 'K'], {})).toThrow(/project/)
    expect(() => rewrite(['get', '-k', 'K', '-k', 'L', '-p', 'p'], {})).toThrow(/twice/)
  })
})
