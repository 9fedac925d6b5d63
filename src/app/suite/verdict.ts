/** How a case ends when it does not end well. */

/** What a case found, in words for the operator: it is red. */
export class Finding extends Error {}

/** It can't be tried, for a reason that only trying has shown. */
export class Skip extends Error {}
