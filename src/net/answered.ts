/**
 * Whether an error status is the answer of the service itself to this call, so that the
 * service does nothing more for it. Then the extras of the `AdapterError` say so. 500 and
 * 501 come from the service (RFC 9110, 15.6). 502, 503, 504 and the 52x of Cloudflare
 * (https://developers.cloudflare.com/support/troubleshooting/http-status-codes/cloudflare-5xx-errors)
 * come from a proxy or gateway, which gives a call up that the service may go on with;
 * 408 and 499 also mean that a call was given up.
 *
 * @param own whether the answer has the form that this service uses; the error page of a
 *   proxy has not
 */
export function answeredBy(status: number, own = true): { readonly answered?: true } {
  return own && (status === 500 || status === 501) ? { answered: true } : {}
}
