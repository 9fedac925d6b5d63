/** A notice of a rotation that went well. */
import type { Notice } from '../../src/core/notifier.ts'
import { START } from './clock.ts'

export const notice: Notice = {
  id: 'evt_0001',
  type: 'succeeded',
  at: START,
  path: 'app/prod/KEY',
  runId: 'run_1',
  urgent: false,
  title: 'Key Rotation Complete: app/prod/KEY',
  facts: [
    { label: 'New key', value: 'sk-…j9M1' },
    { label: 'Services updated', value: '4/4' },
  ],
  next: null,
  command: 'rotate audit list --run run_1',
}
