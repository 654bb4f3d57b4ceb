// Loaded before a command of the quickstart: tells, when it ends, the most memory that it had, in MiB, on file descriptor 3.
import { writeSync } from 'node:fs'

process.once('exit', () => writeSync(3, String(process.resourceUsage().maxRSS / 1024)))
