// The first of three ranks, and the only one that comes. Prints what it is told, as JSON.
import * as torch from '../../../../dist/torch/index.js'

const told = []
try {
  const masterPort = Number(process.env.MASTER_PORT)
  await torch.distributed.initProcessGroup({ backend: 'gloo', rank: 0, worldSize: 3, masterPort, timeout: 500 })
} catch (error) {
  told.push(`${error.name}: ${error.message}`)
}
console.log(JSON.stringify({ told }))
