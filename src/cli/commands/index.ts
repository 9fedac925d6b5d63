/** Every command, in the order in which help lists them. How to add one: see `program.ts`. */
import type { Register } from '../program.ts'
import { get } from './get.ts'
import { init } from './init.ts'
import { list } from './list.ts'
import { set } from './set.ts'
import { version } from './version.ts'
import { versions } from './versions.ts'

export const commands: readonly Register[] = [init, set, get, list, versions, version]
