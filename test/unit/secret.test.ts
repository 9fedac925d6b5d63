import { expect, test } from 'vitest'
import { Secret } from '../../src/core/secret.ts'

test('a secret shares its memory with nobody: neither with the buffer it came from nor with what it gave out', () => {
  const buffer = Buffer.from('value-0')
  const secret = new Secret(buffer)
  buffer.fill(0)
  secret.bytes().fill(0)
  expect(secret.reveal()).toBe('value-0')
})
