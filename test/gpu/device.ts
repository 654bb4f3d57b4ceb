import { test } from 'vitest'
import type * as torch from '../../src/torch/index.js'

/** 'cuda', or 'cpu' for whoever looks whether these files run at all: npm run test:gpu -- --device cpu. */
export const device = (process.env.CLEFT_TEST_DEVICE ?? 'cuda') as torch.Device
export const isGpu = device.startsWith('cuda')

/** A test of what no CPU has: it is not there without a GPU. */
export function testOnGpu(name: string, run: () => void | Promise<void>): void {
  if (isGpu) test(name, run)
}
