package store

import ("testing";"path/filepath";"fmt";"time";"joinery/lorawan")

func TestPlan(t *testing.T){
 o:=Options{Path: filepath.Join(t.TempDir(),"x.db"),UnsafeNoSync:true}
 if err:=Create(t.Context(),o);err!=nil{t.Fatal(err)}
 d,err:=Open(t.Context(),o); if err!=nil{t.Fatal(err)}
 defer d.Close()
 tim:=func(name,q string){
  d.w.c.exec("SELECT 1")
  c:=d.w.c
  st,err:=c.Prepare(q); if err!=nil{fmt.Println(name,err);return}
  var e lorawan.EUI64
  s:=time.Now()
  for range 2000{ 
   st,_=c.Prepare(q)
   st.BindBytes(1,e[:]); if st.BindParamCount()>1 {st.BindBytes(2,e[:])}
   st.Step(); st.Reset() }
  fmt.Println(name,time.Since(s)/2000)
 }
 tim("load",loadQuery)

 W:=" WHERE d.deleted_at IS NULL AND d.dev_eui = ? AND d.join_eui = ?"
 tim("d k","SELECT d.id FROM device d JOIN key_set k ON k.id = d.key_set"+W)
 tim("d k cast","SELECT d.id FROM device d JOIN key_set k ON k.id = d.key_set WHERE d.deleted_at IS NULL AND d.dev_eui = CAST(? AS BLOB) AND d.join_eui = CAST(? AS BLOB)")
 tim("d k b","SELECT d.id, b.epoch FROM device d JOIN key_set k ON k.id = d.key_set LEFT JOIN binding b ON b.device = d.id"+W)
 tim("d k s","SELECT d.id, s.nwk_use FROM device d JOIN key_set k ON k.id = d.key_set LEFT JOIN sealed_root s ON s.key_set = k.id"+W)
 tim("d k s case","SELECT d.id, s.nwk_use FROM device d JOIN key_set k ON k.id = d.key_set LEFT JOIN sealed_root s ON s.key_set = CASE WHEN k.origin = 2 THEN k.id END"+W)
 tim("d k s case2","SELECT d.id, s.nwk_use FROM device d JOIN key_set k ON k.id = d.key_set LEFT JOIN sealed_root s ON s.key_set = CASE k.origin WHEN 2 THEN k.id END"+W)
 tim("d k s on","SELECT d.id, s.nwk_use FROM device d JOIN key_set k ON k.id = d.key_set LEFT JOIN sealed_root s ON s.key_set = k.id AND k.origin=2"+W)
}
