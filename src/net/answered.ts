/**
 * Has the service itself answered this very call with an error, so that it does nothing
 * more for it? 500 and 501 are a service's own words (RFC 9110, 15.6). 502, 503, 504 and
 * the 52x of Cloudflare
 * (https://developers.cloudflare.com/support/troubleshooting/http-status-codes/cloudflare-5xx-errors)
 * come from something in between, which gives a call up that the service may go on with;
 * 408 and 499 are given up too.
 *
 * @param own is the answer in the form in which that service speaks? A page of a proxy is
 *   not.
 * @returns extras of an `AdapterError`
 */
export function answeredBy(status: number, own = true): { readonly answered?: true } {
  return own && (status === 500 || status === 501) ? { answered: true } : {}
}
