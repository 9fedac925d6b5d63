/**
 * Every command. Help shows them in groups, and within a group in this order. How to add
 * one stands in `../command.ts`.
 */
import type { Register } from '../command.ts'
import { provider, target } from './adapters.ts'
import { audit } from './audit.ts'
import { completion } from './completion.ts'
import { deliver, drift } from './deliver.ts'
import { demo } from './demo.ts'
import { get } from './get.ts'
import { help } from './help.ts'
import { history } from './history.ts'
import { importCommand } from './import.ts'
import { init } from './init.ts'
import { list } from './list.ts'
import { notify } from './notify.ts'
import { plan } from './plan.ts'
import { mv, restore, rm } from './remove.ts'
import { abort, resume, rollback } from './resume.ts'
import { reconcile } from './reconcile.ts'
import { adopt, check, revoke } from './revoke.ts'
import { rotate } from './rotate.ts'
import { runDue } from './run-due.ts'
import { schedule } from './schedule.ts'
import { set } from './set.ts'
import { show } from './show.ts'
import { unlocker } from './unlocker.ts'
import { vault } from './vault.ts'
import { version } from './version.ts'
import { where } from './where.ts'
import { versions } from './versions.ts'

export const commands: readonly Register[] = [
  init,
  demo,
  set,
  get,
  list,
  show,
  versions,
  rm,
  restore,
  mv,
  importCommand,
  rotate,
  plan,
  runDue,
  deliver,
  check,
  resume,
  abort,
  rollback,
  revoke,
  adopt,
  reconcile,
  schedule,
  provider,
  target,
  notify,
  history,
  where,
  drift,
  audit,
  unlocker,
  vault,
  completion,
  help,
  version,
]
