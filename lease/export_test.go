package lease

// DrawStep is the first step of Draw, for a test that crashes after it.
func DrawStep(g Guest, to string) Step {
	return Step{Guest: g, From: []State{Shelved}, To: Preparing, claim: &to}
}

// MirrorFrom has so many turns that come together make a mirror. No call may be under way.
func (s *Store) MirrorFrom(turns int) { s.turns = turns }

// Turned is how many batches the mirror of a cache has decided; 0: there is none.
func (s *Store) Turned(cache string) int {
	if m := s.queues.mirror(cache); m != nil {
		return m.batches
	}
	return 0
}

// Waiting is how many calls on a cache wait for a script to come back.
func (s *Store) Waiting(cache string) int {
	s.queues.mu.Lock()
	defer s.queues.mu.Unlock()
	if l := s.queues.lines[cache]; l != nil {
		return len(l.waiting)
	}
	return 0
}

// SingleTurns is the name of the script of turns that come without other calls, as it is sent.
func (s *Store) SingleTurns() string { return s.scripts["turns"].Hash() }
