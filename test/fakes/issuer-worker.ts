/**
 * A program as an operator writes one for the provider `exec`: a far side of tokens in a
 * directory, one program for all events, in JSON or with bare values.
 * `node issuer-worker.ts DIR JSON|VALUE FAULT`: with a fault it breaks exactly one
 * promise.
 */
import { createHash, randomBytes } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'

const [dir = '', output = 'json', fault = ''] = process.argv.slice(2)
const is = (name: string): boolean => fault === name

interface Token {
  readonly value: string
  readonly keyId: string
}

const place = (value: string): string =>
  join(dir, 'live', createHash('sha256').update(value).digest('hex'))
const record = (intent: string): string => join(dir, 'made', intent)
const isLive = (value: string): boolean => existsSync(place(value))
const pause = (ms: number): void =>
  void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)

function end(code: number): never {
  process.exit(code)
}

function madeBy(intent: string): Token | undefined {
  return existsSync(record(intent))
    ? (JSON.parse(readFileSync(record(intent), 'utf8')) as Token)
    : undefined
}

function make(intent: string): Token {
  const known = madeBy(intent)
  if (known !== undefined && !is('ignores-tag')) return known
  if (is('overlap-lie'))
    for (const name of readdirSync(join(dir, 'live'))) rmSync(join(dir, 'live', name))
  const keyId = `k-${randomBytes(4).toString('hex')}`
  const value = is('same-value')
    ? 'tok_0123456789abcdefABCDEF'
    : `tok_${randomBytes(12).toString('hex')}`
  const token = { value, keyId: is('handle-is-value') ? value : is('same-handle') ? 'k-0' : keyId }
  // The record first, in one step: what lives can always be found.
  if (known === undefined) {
    writeFileSync(`${record(intent)}.new`, JSON.stringify(token))
    renameSync(`${record(intent)}.new`, record(intent))
  }
  writeFileSync(place(value), '')
  return token
}

function print({ value, keyId }: Token): void {
  const wrong = is('wrong-field')
  process.stdout.write(
    output === 'value'
      ? `${value}\n`
      : JSON.stringify({ [wrong ? 'token' : 'value']: value, keyId }),
  )
}

mkdirSync(join(dir, 'live'), { recursive: true })
mkdirSync(join(dir, 'made'), { recursive: true })
const stdin = readFileSync(0, 'utf8')
let asked: { readonly event?: string; readonly intent?: string; readonly value?: string } = {}
if (output === 'value')
  asked = {
    event: process.env['ROTATE_EVENT'] ?? '',
    intent: process.env['ROTATE_INTENT'] ?? '',
    value: stdin,
  }
else {
  try {
    asked = JSON.parse(stdin) as typeof asked
  } catch {
    end(is('yes-to-half') ? 0 : 2)
  }
}
const { event = '', intent = '', value = '' } = asked
const lock = join(dir, 'lock')

switch (event) {
  case 'create': {
    if (is('hangs')) pause(60_000)
    if (is('rubbish')) process.stdout.write('here you are')
    else if (is('lock')) writeFileSync(lock, '')
    const token = make(intent)
    if (is('leak-create')) process.stderr.write(`made ${token.value}\n`)
    // The answer takes a while, so that there is something to be stopped.
    pause(is('lock') ? 500 : 100)
    if (!is('rubbish')) print(token)
    if (is('lock')) rmSync(lock)
    break
  }
  case 'settle': {
    if (is('lock') && existsSync(lock)) {
      process.stderr.write('another create is running\n')
      end(3)
    }
    const token = madeBy(intent)
    if (token !== undefined && !is('settle-none')) print(token)
    else if (is('settle-invents')) print({ value: 'tok_invented00000000', keyId: 'k-invented' })
    else process.stdout.write('{"outcome":"none"}')
    break
  }
  case 'verify':
    if (is('hangs-verify')) pause(60_000)
    if (is('leak-verify')) process.stderr.write(`trying ${value}\n`)
    if (is('verify-yes')) break
    if (is('verify-no')) end(1)
    end(isLive(value) ? 0 : is('wrong-code') ? 2 : 1)
    break
  case 'revoke':
    if (is('revoke-nothing')) break
    if (is('revoke-all'))
      for (const name of readdirSync(join(dir, 'live'))) rmSync(join(dir, 'live', name))
    if (is('revoke-once') && !isLive(value)) {
      process.stderr.write('no such token\n')
      end(3)
    }
    rmSync(place(value), { force: true })
    break
  default:
    if (is('unknown-creates')) print(make(intent))
    if (is('unknown-makes')) make(intent)
    end(is('unknown-zero') || is('unknown-creates') ? 0 : 2)
}
