/**
 * `rotate --help`: prints the text that the program itself printed when it was built, so
 * that a look at the help does not build every command. The launcher starts this file
 * when there is nothing else on the command line. If the text can't be printed, main.ts
 * goes on and says why.
 */
import { readFileSync } from 'node:fs'
import { writeAll } from './cli/write.ts'

function printHelp(): boolean {
  let text: Uint8Array
  try {
    text = readFileSync(`${import.meta.dirname}/help.txt`)
  } catch {
    return false
  }
  const result = writeAll(1, text)
  return result === 'ok' || result === 'closed'
}

if (printHelp()) process.exit(0)
await import('./main.ts')
