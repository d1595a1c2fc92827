package embedded

import (
	"fmt"
	"slices"
	"strings"
)

// reads change nothing and are not journalled.
var reads = set(`
	PING ECHO HELLO CLIENT SELECT QUIT COMMAND INFO TIME DBSIZE
	EXISTS TYPE TTL PTTL EXPIRETIME PEXPIRETIME KEYS SCAN
	GET MGET STRLEN GETRANGE
	HGET HGETALL HMGET HKEYS HVALS HLEN HEXISTS HSTRLEN HSCAN
	LINDEX LLEN LRANGE LPOS
	SCARD SISMEMBER SMISMEMBER SMEMBERS SDIFF SINTER SINTERCARD SUNION SSCAN
	ZCARD ZCOUNT ZLEXCOUNT ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZREVRANGE ZREVRANGEBYLEX
	ZREVRANGEBYSCORE ZRANK ZREVRANK ZSCORE ZMSCORE ZINTER ZUNION ZSCAN
	XLEN XRANGE XREVRANGE XREAD XINFO
	EVALSHA_RO EVAL_RO`)

// writes are journalled. They are deterministic, and leave only what a snapshot can hold: where the
// result is empty miniredis' SUNIONSTORE and its like leave an empty key, which Redis doesn't know.
var writes = set(`
	DEL UNLINK EXPIRE PEXPIRE EXPIREAT PEXPIREAT PERSIST RENAME RENAMENX FLUSHALL FLUSHDB
	SET SETNX SETEX PSETEX SETRANGE GETSET GETDEL GETEX APPEND MSET MSETNX
	INCR INCRBY INCRBYFLOAT DECR DECRBY
	HSET HSETNX HMSET HDEL HINCRBY HINCRBYFLOAT
	LPUSH LPUSHX RPUSH RPUSHX LPOP RPOP LREM LSET LTRIM LINSERT LMOVE RPOPLPUSH
	SADD SREM SMOVE
	ZADD ZREM ZINCRBY ZPOPMIN ZPOPMAX ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE
	XADD XDEL XTRIM
	EVALSHA EVAL SCRIPT`)

func set(words string) map[string]bool {
	m := map[string]bool{}
	for w := range strings.FieldsSeq(words) {
		m[w] = true
	}
	return m
}

// refuse returns the error reply for a command that the embedded Redis does not take, or "". The
// name is in upper case.
func refuse(name string, args []string) string {
	var why string
	switch sub := strings.ToUpper(strings.Join(args[:min(1, len(args))], "")); {
	case !reads[name] && !writes[name]:
		why = "it blocks, picks at random, or can't be journalled"
	case name == "XREAD" && slices.ContainsFunc(args, isBlock):
		why = "it blocks"
	case name == "SELECT" && sub != "0":
		why = "there is only database 0"
	case name == "SCRIPT" && sub != "LOAD" && sub != "EXISTS":
		why = "only LOAD and EXISTS can be journalled"
	case slices.Contains([]string{"EVAL", "EVAL_RO", "SCRIPT"}, name) && strings.Contains(strings.Join(args[:min(2, len(args))], " "), "math.random"):
		why = "a script that uses math.random would replay differently"
	default:
		return ""
	}
	return fmt.Sprintf("ERR %s is not available in the embedded Redis: %s; do without, or use a Redis server", name, why)
}

func isBlock(arg string) bool { return strings.EqualFold(arg, "BLOCK") }
