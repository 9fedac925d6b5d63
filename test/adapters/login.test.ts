import { describe, expect, test } from 'vitest'
import { type Fields, Secret } from '../../src/core/secret.ts'
import { loginFault, loginOf } from '../../src/providers/_login.ts'

const fieldsOf = (texts: Readonly<Record<string, string>>): Fields =>
  Object.fromEntries(Object.entries(texts).map(([name, text]) => [name, new Secret(text)]))

describe('which value can be the current one', () => {
  const two = { users: ['app_a', 'app b'] as const }
  const one = { user: "o'app" }
  const line = 'rotate set p/db/APP --field username=app_a'

  test.each([
    [two, { username: 'app_a', password: 'x' }],
    [two, { username: 'app b', url: 'x' }],
    [one, { username: "o'app", password: 'x' }],
    [one, { password: 'x' }],
    [one, { value: 'x' }],
  ])('%j: %j can', (users, texts) => {
    expect(loginFault(users, fieldsOf(texts), 'p/db/APP', 'role')).toBeUndefined()
  })

  test.each([
    [
      two,
      { value: 's3cret' },
      /does not say which of the roles app_a and app b/,
      /^rotate set p\/db\/APP --fields-from - .*"username":"app_a"/,
    ],
    [two, { password: 's3cret' }, /does not say which/, new RegExp(`^${line}   \\(or app b`)],
    [two, { url: 's3cret' }, /does not say which/, new RegExp(`^${line} --field password=@-`)],
    [
      two,
      { username: 's3cret', password: 's3cret' },
      /none of the roles app_a and app b/,
      new RegExp(`^${line} --field password=@-`),
    ],
    [
      one,
      { username: 's3cret', password: 's3cret' },
      /another role/,
      /--field 'username=o'\\''app' --field password=@-$/,
    ],
  ])('%j: %j can not, and no value is shown', (users, texts, why, hint) => {
    const fault = loginFault(users, fieldsOf(texts), 'p/db/APP', 'role')
    expect(fault?.why).toMatch(why)
    expect(fault?.hint).toMatch(hint)
    expect(JSON.stringify(fault)).not.toContain('s3cret')
  })
})

test('one value is the password of the one user, and nothing where there are two', () => {
  const login = loginOf(fieldsOf({ value: 'x' }), 'app')
  expect([login.username, login.password.reveal()]).toEqual(['app', 'x'])
  expect(loginOf(fieldsOf({ password: 'x' }), 'app').username).toBe('app')
  expect(() => loginOf(fieldsOf({ value: 'x' }))).toThrow(/no fields/)
})
