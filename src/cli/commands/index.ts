/** Every command, in the order in which help lists them. How to add one: see `program.ts`. */
import type { Register } from '../program.ts'
import { version } from './version.ts'

export const commands: readonly Register[] = [version]
