package bench

import (
	"context"
	"strconv"
)

// running is the site whose machines run all the time, for the cases that only
// ask. The first case that needs it starts it.
func (l *Lab) running(ctx context.Context) (*site, error) {
	if l.fleet != nil {
		return l.fleet, nil
	}
	s, err := l.site("fleet")
	if err != nil {
		return nil, err
	}
	if err := s.boards(l.Machines, false); err != nil {
		return nil, err
	}
	if err := s.apply(ctx); err != nil {
		return nil, err
	}
	l.fleet = s
	return s, nil
}

// openGet compares a table of all machines with their bare run states.
func openGet(ctx context.Context, lab *Lab) (Bench, error) {
	s, err := lab.running(ctx)
	if err != nil {
		return Bench{}, err
	}
	ask := append([]string{"status", "-j", strconv.Itoa(askAtATime)}, s.sockets()...)
	return Bench{
		Ours: Half{Do: func(ctx context.Context) error { return s.maqet(ctx, "get") }},
		Raw:  Half{Do: func(ctx context.Context) error { return s.rawclient(ctx, ask...) }},
	}, nil
}

// openUnchanged compares an apply that has nothing to do with the same questions
// asked raw. The questions are those that maqet was heard to ask one machine;
// all of them are built alike, so the same can be asked of each.
func openUnchanged(ctx context.Context, lab *Lab) (Bench, error) {
	s, err := lab.running(ctx)
	if err != nil {
		return Bench{}, err
	}
	commands, err := overhear(s.layout.CLISocket(s.names[0]), func() error { return s.apply(ctx) })
	if err != nil {
		return Bench{}, err
	}
	file, err := s.save("commands.json", commands)
	if err != nil {
		return Bench{}, err
	}
	ask := append([]string{"ask", "-j", strconv.Itoa(askAtATime), "-f", file}, s.sockets()...)
	return Bench{
		Ours: Half{Do: s.apply},
		Raw:  Half{Do: func(ctx context.Context) error { return s.rawclient(ctx, ask...) }},
	}, nil
}

// openQMP measures one command to one machine.
func openQMP(ctx context.Context, lab *Lab) (Bench, error) {
	s, err := lab.running(ctx)
	if err != nil {
		return Bench{}, err
	}
	return Bench{
		Ours: Half{Do: func(ctx context.Context) error { return s.maqet(ctx, "qmp", s.names[0], "query-status") }},
		Raw:  Half{Do: func(ctx context.Context) error { return s.rawclient(ctx, "status", s.sockets()[0]) }},
	}, nil
}

// openValidate measures the reading and checking of many manifests. Nothing
// known does the same, so it is held against nothing.
func openValidate(_ context.Context, lab *Lab) (Bench, error) {
	s, err := lab.site("validate")
	if err != nil {
		return Bench{}, err
	}
	if err := s.fulls(lab.Manifests); err != nil {
		return Bench{}, err
	}
	return Bench{
		Ours: Half{Do: func(ctx context.Context) error { return s.maqet(ctx, "validate", "-f", s.manifests) }},
	}, nil
}
