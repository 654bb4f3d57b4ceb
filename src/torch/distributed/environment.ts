/** Where a process stands among the others, and where they meet. */
export interface LaunchEnvironment {
  /** From 0 on, over all machines. */
  readonly rank: number
  readonly worldSize: number
  /** From 0 on, on this machine: which GPU is its own. */
  readonly localRank: number
  readonly masterAddress: string
  readonly masterPort: number
  /** Whether the launcher keeps the store, as torchrun does; else rank 0 does. */
  readonly launcherKeepsStore: boolean
  /** Distinguishes one start of the processes from the next, where the store outlives them. */
  readonly attempt: string
}

type Variables = Readonly<Record<string, string | undefined>>

function integerOf(variables: Variables, name: string): number {
  const text = variables[name]
  if (text === undefined || !/^\d+$/.test(text)) {
    throw new RangeError(
      `${name} was expected to be a whole number, and is ${text === undefined ? 'not set' : `'${text}'`}; torchrun, Slurm and \`cleft train --processes\` set it`,
    )
  }
  return Number(text)
}

function checkRanks(found: LaunchEnvironment): LaunchEnvironment {
  if (found.worldSize < 1 || found.rank >= found.worldSize) {
    throw new RangeError(
      `a rank below the number of processes was expected, and rank ${found.rank} of ${found.worldSize} came; see RANK and WORLD_SIZE, or SLURM_PROCID and SLURM_NTASKS`,
    )
  }
  if (found.masterPort > 65535) {
    throw new RangeError(`MASTER_PORT was expected to be at most 65535, and is ${found.masterPort}`)
  }
  return found
}

/** The first machine of Slurm's short form: 'gpu[003-005,9],login' is 'gpu003'. */
export function firstHost(nodeList: string): string {
  const match = nodeList.trim().match(/^([^[,]+)(?:\[(\d+)[^\]]*\]([^,]*))?/)
  if (match?.[1] === undefined) {
    throw new RangeError(`a list of machines like 'node[01-04]' was expected, and '${nodeList}' came`)
  }
  return `${match[1]}${match[2] ?? ''}${match[3] ?? ''}`
}

function fromTorchrun(variables: Variables): LaunchEnvironment {
  const address = variables.MASTER_ADDR
  if (!address) {
    throw new RangeError(
      'MASTER_ADDR was expected beside RANK and WORLD_SIZE, and is not set; torchrun sets all of them',
    )
  }
  return checkRanks({
    rank: integerOf(variables, 'RANK'),
    worldSize: integerOf(variables, 'WORLD_SIZE'),
    localRank: variables.LOCAL_RANK === undefined ? 0 : integerOf(variables, 'LOCAL_RANK'),
    masterAddress: address,
    masterPort: integerOf(variables, 'MASTER_PORT'),
    launcherKeepsStore: variables.TORCHELASTIC_USE_AGENT_STORE === 'True',
    attempt: variables.TORCHELASTIC_RESTART_COUNT ?? '0',
  })
}

function fromSlurm(variables: Variables): LaunchEnvironment {
  const nodes = variables.SLURM_STEP_NODELIST ?? variables.SLURM_JOB_NODELIST
  const address = variables.MASTER_ADDR ?? (nodes === undefined ? undefined : firstHost(nodes))
  if (!address) {
    throw new RangeError(
      'SLURM_STEP_NODELIST was expected beside SLURM_PROCID, and is not set; start the processes with srun',
    )
  }
  // All tasks of a job step agree on it, and two jobs on one machine rarely have the same.
  const step = Number(variables.SLURM_STEP_ID ?? 0) || 0
  const port = 15_000 + (((Number(variables.SLURM_JOB_ID ?? 0) || 0) * 7 + step) % 10_000)
  return checkRanks({
    rank: integerOf(variables, 'SLURM_PROCID'),
    worldSize: integerOf(variables, 'SLURM_NTASKS'),
    localRank: variables.SLURM_LOCALID === undefined ? 0 : integerOf(variables, 'SLURM_LOCALID'),
    masterAddress: address,
    masterPort: variables.MASTER_PORT === undefined ? port : integerOf(variables, 'MASTER_PORT'),
    launcherKeepsStore: false,
    attempt: '0',
  })
}

/**
 * Whether a process that is asked for so many is to start them: it is not one of them.
 *
 * @throws RangeError where a launcher has started another number
 */
export function startsProcesses(processes: number | undefined): boolean {
  if (processes === undefined) return false
  const started = readLaunchEnvironment()
  if (started === null) return processes > 1
  if (started.worldSize === processes) return false
  throw new RangeError(
    `processes: expected the ${started.worldSize} that the launcher started, but received ${processes}; leave it out`,
  )
}

/**
 * What a launcher says of this process: torchrun's RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, or Slurm's
 * SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID and SLURM_STEP_NODELIST; null where there is only this process.
 *
 * @throws RangeError where the variables are there and contradict each other
 */
export function readLaunchEnvironment(variables: Variables = process.env): LaunchEnvironment | null {
  if (variables.RANK !== undefined && variables.WORLD_SIZE !== undefined) return fromTorchrun(variables)
  // Inside an interactive allocation (salloc) the number of tasks is set, and no task is.
  if (variables.SLURM_PROCID !== undefined && variables.SLURM_STEP_NODELIST !== undefined) return fromSlurm(variables)
  return null
}
