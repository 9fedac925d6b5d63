/**
 * Notices whether a write of one session may still be carried out although its answer was
 * given up. A repetition that succeeds does not take the doubt away, because the first
 * request may still arrive after it.
 */
import { AdapterError } from '../../core/errors.ts'
import type { Http } from '../../core/ports.ts'

/** The same client, and whether a write through it is in doubt. */
export function doubting(http: Http): { readonly http: Http; readonly inDoubt: () => boolean } {
  let doubt = false
  return {
    inDoubt: () => doubt,
    http: {
      async send(request) {
        try {
          const response = await http.send(request)
          doubt ||= response.unsettled === true
          return response
        } catch (thrown) {
          doubt ||=
            request.effect !== 'read' &&
            thrown instanceof AdapterError &&
            thrown.effect === 'unknown' &&
            !thrown.answered
          throw thrown
        }
      },
    },
  }
}
