import { parentPort, workerData } from 'node:worker_threads'
import sharp from 'sharp'
import type { PhantomSettings } from './kind.js'
import { writePatient } from './write.js'

/** What a worker thread is started with; it tells how many images it has done after each patient. */
export interface PhantomShare {
  readonly out: string
  readonly settings: PhantomSettings
  readonly patients: readonly number[]
}

// There are as many workers as cores.
sharp.concurrency(1)

const { out, settings, patients } = workerData as PhantomShare
for (const patient of patients) parentPort?.postMessage(await writePatient(out, settings, patient))
