import type { TrainEvent } from '../events.js'

/** What is told of a run, and takes it down. It throws where it cannot. */
export interface EventLog {
  write(event: TrainEvent): void
  close(): void
}

/** An event as one line of JSON, without pixels. Numbers that are not finite are null. */
export function eventLine(event: TrainEvent): string {
  if (event.type !== 'image') return JSON.stringify(event)
  const { png: _, ...rest } = event
  return JSON.stringify(rest)
}
