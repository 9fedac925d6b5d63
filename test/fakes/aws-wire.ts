/**
 * What the fakes of AWS have in common on the wire: errors and the XML of the query
 * protocol (https://docs.aws.amazon.com/IAM/latest/APIReference/CommonErrors.html).
 */

/** An error answer. */
export class Reply extends Error {
  readonly status: number
  readonly code: string
  constructor(status: number, code: string, message: string) {
    super(message)
    this.status = status
    this.code = code
  }
}

export const IAM = 'https://iam.amazonaws.com/doc/2010-05-08/'
export const STS = 'https://sts.amazonaws.com/doc/2011-06-15/'
const escape = (text: string): string =>
  text.replace(/[&<>]/g, (char) => `&#${char.charCodeAt(0)};`)
export const tag = (name: string, text: string): string => `<${name}>${escape(text)}</${name}>`
export const date = (ms: number): string => `${new Date(ms).toISOString().slice(0, 19)}Z`
