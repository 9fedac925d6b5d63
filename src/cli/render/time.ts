/**
 * Dates for people: local time with its zone, plus how far away that is. Machines get
 * ISO-8601 (core/duration.ts).
 */
import { humanSpan } from '../../core/duration.ts'
import { usage } from '../../core/errors.ts'
import { visible } from '../../core/names.ts'
import { pickDefined } from '../../core/defined.ts'

export class Times {
  readonly #format: Intl.DateTimeFormat
  readonly #now: () => number

  /** @param zone an IANA name; `undefined` for the zone of the system */
  constructor(now: () => number, zone: string | undefined) {
    this.#now = now
    try {
      this.#format = new Intl.DateTimeFormat('en-CA', {
        ...pickDefined({ timeZone: zone }),
        year: 'numeric',
        month: '2-digit',
        day: '2-digit',
        hour: '2-digit',
        minute: '2-digit',
        hourCycle: 'h23',
        timeZoneName: 'short',
      })
    } catch {
      throw usage(
        `ROTATE_TZ: "${visible(zone ?? '', 40)}" is not a time zone`,
        'use a name such as Europe/Berlin or UTC',
      )
    }
  }

  /** `2026-11-21 14:05 CET` */
  at(ms: number): string {
    const part: Record<string, string> = {}
    for (const { type, value } of this.#format.formatToParts(ms)) part[type] = value
    return (
      `${part['year']}-${part['month']}-${part['day']} ${part['hour']}:${part['minute']} ` +
      `${part['timeZoneName']}`
    )
  }

  /** `in 3 days`, `5 h ago`, `now` */
  relative(ms: number): string {
    const away = ms - this.#now()
    if (Math.abs(away) < 1000) return 'now'
    return away > 0 ? `in ${humanSpan(away)}` : `${humanSpan(away)} ago`
  }

  /** `2026-11-21 14:05 CET (in 3 days)`; a dash for what has no date. */
  when(ms: number | null | undefined): string {
    return ms === null || ms === undefined ? '-' : `${this.at(ms)} (${this.relative(ms)})`
  }
}
