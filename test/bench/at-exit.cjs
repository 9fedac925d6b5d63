// Loaded with --require: on exit, what this process has loaded and how much memory it took, as one line of JSON on descriptor 3.
'use strict'
const fs = require('node:fs')
const files = []
require('node:module').registerHooks({
  load(url, context, next) {
    files.push(url)
    return next(url, context)
  },
})
process.on('exit', () => {
  // ru_maxrss is inherited from whoever started this process; VmHWM is this program's own.
  let peak = process.resourceUsage().maxRSS
  try {
    peak = Number(/^VmHWM:\s+(\d+) kB$/m.exec(fs.readFileSync('/proc/self/status', 'latin1'))[1])
  } catch {}
  fs.writeSync(
    3,
    JSON.stringify({
      node: process.execPath,
      peakKiB: peak,
      files,
      builtins: process.moduleLoadList,
    }),
  )
})
