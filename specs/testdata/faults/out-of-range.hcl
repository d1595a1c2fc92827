pool "a" {
  module     = "local"
  max        = 0
  spare      = -1
  shard_size = 501
  capacity   = { cpus = -2 }
  rollout {
    max_unavailable = 0
  }
  probe "tcp" {
    failures = 0
    port     = 70000
  }
}

pool "b" {
  module     = "local"
  max        = 100001
  shard_size = 0
}

cache "c" {
  pools = [pool.a]
  warm  = -2
  size  = -1
  max   = 0
  reuse {
    uses = 0
  }
  hold {
    max = -1
  }
}
