import { cuda as devices } from './devices.js'
import { Graph, GraphedStep } from './graphs.js'

/** GPUs, their memory, streams and graphs. Functions other than isAvailable() and deviceCount() are RangeErrors where there is none. */
export const cuda = { ...devices, Graph, GraphedStep }
