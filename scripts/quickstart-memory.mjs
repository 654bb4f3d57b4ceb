// Loaded before a command of the quickstart: tells, when it ends, the most memory that it had, in MiB, on file descriptor 3.
import { writeSync } from 'node:fs'
import { isMainThread } from 'node:worker_threads'

// It is the whole process's; threads are started with this file too.
if (isMainThread) process.once('exit', () => writeSync(3, String(process.resourceUsage().maxRSS / 1024)))
