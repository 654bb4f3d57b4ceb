import { readFileSync } from 'node:fs'

/** Sends a signal to one of the processes that a process started for train() or evaluate(); false: it has not (yet). */
export function signalRank(rank: number, signal: NodeJS.Signals, parent = process.pid): boolean {
  const children = readFileSync(`/proc/${parent}/task/${parent}/children`, 'utf8').trim().split(' ')
  const found = children.find((pid) => environmentOf(pid).includes(`RANK=${rank}`))
  return found !== undefined && process.kill(Number(found), signal)
}

function environmentOf(pid: string): string[] {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0')
  } catch {
    // it has ended meanwhile
    return []
  }
}
